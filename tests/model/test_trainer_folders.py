"""What runs find in their folders: an earlier run is never taken for a later one."""

import dataclasses
import shutil
import sys

import pytest
import yaml

import model.training.trainer as trainer_module
from model.comparison.command import compare
from model.comparison.config import CompareConfig
from model.errors import UserError
from model.training.command import run
from model.training.outcome import Progress
from model.training.run_folder import RunFolder
from model.training.sweep import sweep
from model.training.trainer import train
from model.weights import load_weights
from tests.model.conftest import TINY
from tests.model.test_trainer import StopAfter, finetuning
from tests.model.test_trainer_results import killed_at


def recorded(folder) -> dict:
    """The configuration in the card of a folder's weights."""
    return load_weights(folder / "weights.safetensors")[1].training["config"]


def stopped(monkeypatch, do, *arguments) -> None:
    """Call a function while every run ends as by a signal, after some steps."""
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", StopAfter)
        do(*arguments)


@pytest.fixture
def two_stages(config, tmp_path):
    """A first stage with a second that follows, in seconds."""
    values = {
        name: getattr(config, name) for name in ("steps", "crop", "batch", "device", "trackers", "warmup")
    }
    (tmp_path / "second.yaml").write_text(yaml.safe_dump({**values, "out": str(tmp_path / "two")}))
    return dataclasses.replace(config, then=tmp_path / "second.yaml")


def test_sweep_begun_anew_takes_nothing_of_the_earlier_one_for_its_own(config, tiny_weights, monkeypatch):
    first = finetuning(config, tiny_weights, q_weights=[0.0, 0.1])
    sweep(first)
    anew = dataclasses.replace(first, lr=1e-3, overwrite=True)
    stopped(monkeypatch, sweep, anew)
    assert list(sweep(dataclasses.replace(anew, resume=True))) == [0.0, 0.1]
    assert {recorded(first.out / name)["lr"] for name in ("w_0", "w_0.1")} == {1e-3}


def test_second_stage_of_an_earlier_first_one_is_trained_anew(two_stages, monkeypatch, tmp_path, capsys):
    run(two_stages)
    anew = dataclasses.replace(two_stages, seed=5, overwrite=True)
    stopped(monkeypatch, run, anew)
    capsys.readouterr()
    run(dataclasses.replace(anew, resume=True))
    assert "finished before" not in capsys.readouterr().out
    assert recorded(two_stages.out)["seed"] == 5 and (tmp_path / "two" / "weights.safetensors").is_file()


def test_run_killed_at_once_has_no_weights_of_an_earlier_one(config, monkeypatch):
    train(config)
    anew = dataclasses.replace(config, overwrite=True, lr=1e-5)
    with killed_at(0, monkeypatch):
        train(anew)
    with pytest.raises(UserError, match="holds no interrupted run"):
        run(dataclasses.replace(anew, resume=True))


def test_finished_run_of_other_options_is_not_passed_off(two_stages):
    run(two_stages)
    values = yaml.safe_load(two_stages.then.read_text())
    two_stages.then.write_text(yaml.safe_dump({**values, "lr": 0.5}))
    with pytest.raises(UserError, match=r"two holds a run where lr is 0.0002 and not 0.5: go on"):
        run(dataclasses.replace(two_stages, resume=True))


def test_comparison_begun_anew_goes_on_with_no_earlier_checkpoint(photographs, tmp_path, monkeypatch):
    config = CompareConfig(
        photographs=[photographs],
        test=[photographs / "a.png"],
        out=tmp_path / "compare",
        networks=["unet"],
        losses=["l1"],
        network_args={"unet": dict(TINY)},
        steps=4,
        finetune_steps=5,
        batch=2,
        crop=32,
        device="cpu",
    )
    looks = iter([10, 2, 2])

    class Stop(StopAfter):
        def __init__(self):
            super().__init__()
            self.looks = next(looks)

    anew = dataclasses.replace(config, seed=7, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", Stop)
        assert compare(config) is None and compare(anew) is None
    assert compare(dataclasses.replace(anew, resume=True)) is not None
    assert recorded(config.out / "unet" / "l1")["seed"] == 8
    assert "from step" not in (config.out / "unet" / "l1" / "log.txt").read_text()


def test_run_goes_on_with_the_photographs_that_it_began_with(config, photographs, monkeypatch, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(photographs, folder)
    config = dataclasses.replace(config, photographs=[folder])
    stopped(monkeypatch, train, config)
    shutil.copy(folder / "a.png", folder / "d.png")
    with pytest.raises(UserError, match="pictures: these are not the photographs that the run began with"):
        train(dataclasses.replace(config, resume=True))
    (folder / "d.png").unlink()
    # Where they lie makes no difference.
    folder = folder.rename(tmp_path / "moved")
    assert train(dataclasses.replace(config, resume=True, photographs=[folder])).finished


def test_tensorboard_has_every_step_once_and_the_options(config, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def steps() -> list[int]:
        return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("loss")]

    folder = config.out / "logs" / "qkernel"
    config = dataclasses.replace(config, trackers=["tensorboard"], save_every=3)
    with killed_at(5, monkeypatch):
        train(config)
    assert steps() == [2, 3, 4]
    assert train(dataclasses.replace(config, resume=True)).finished
    assert steps() == [2, 3, 4, 6]
    assert yaml.safe_load(next(folder.rglob("hparams.yml")).read_text())["lr"] == config.lr
    assert train(dataclasses.replace(config, overwrite=True, steps=2)).finished
    assert steps() == [2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks no folders")
def test_two_runs_in_one_folder_are_refused(config):
    with (
        RunFolder(config.out).held(),
        pytest.raises(UserError, match="is in use by another run; wait for"),
    ):
        train(config)
    assert not list(config.out.iterdir())
    assert train(config).finished


@pytest.mark.parametrize("saved", [{"world": 2}, {}])
def test_run_goes_on_with_as_many_processes(config, monkeypatch, saved):
    with monkeypatch.context() as patch:
        # Without either, as by a version that saved none.
        values = ("step", "seconds", "best")
        state = lambda self: {name: getattr(self, name) for name in values} | saved  # noqa: E731
        patch.setattr(Progress, "state_dict", state)
        stopped(monkeypatch, train, config)
    if not saved:
        assert train(dataclasses.replace(config, resume=True)).finished
        return
    with pytest.raises(UserError, match="was begun by 2 processes and cannot go on with 1: start as many"):
        train(dataclasses.replace(config, resume=True))


@pytest.mark.parametrize(
    ("name", "q_weights"),
    [("weights.safetensors", []), ("best.safetensors", []), ("w_0/best.safetensors", [0.0])],
)
def test_run_does_not_replace_what_it_starts_from(config, name, q_weights):
    tuned = finetuning(config, config.out.with_name("finetuned") / name, q_weights=q_weights, overwrite=True)
    with pytest.raises(UserError, match="would be replaced by this run; give another --out"):
        tuned.check()


@pytest.mark.parametrize("overwrite", [False, True])
def test_sweep_beside_the_weights_that_it_starts_from_leaves_them(config, overwrite):
    first = train(dataclasses.replace(config, steps=1))
    sweep(finetuning(config, first.weights, q_weights=[0.0], out=config.out, steps=1, overwrite=overwrite))
    assert load_weights(first.weights)[1].stage == "train"


def test_sweep_goes_on_without_a_weight_that_diverges(config, tiny_weights, capsys):
    tuned = finetuning(config, tiny_weights, q_weights=[1e39, 0.0], holdout=1, steps=2)
    for resume in (False, True):
        assert run(dataclasses.replace(tuned, resume=resume)) == 1
        shown = capsys.readouterr().out
        assert "w_1e+39 diverged, the sweep goes on without it: " in shown
        assert ("w_0: finished before" in shown) == resume
        table = (tuned.out / "table.txt").read_text().splitlines()
        assert [line.split()[0] for line in table[1:]] == ["blurred", "w_1e+39", "w_0"]
        assert table[2].split() == ["w_1e+39", "diverged"] and "diverged" not in table[1] + table[3]

"""What a run shows and leaves: validation, best weights, averages, curves, report, sweeps, stages."""

import csv
import dataclasses
import struct
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import model.training.trainer as trainer_module
from model.data.prepare import PrepareConfig, prepare
from model.data.sources import load_images
from model.errors import UserError
from model.training.command import run
from model.training.config import FinetuneConfig
from model.training.sweep import sweep
from model.training.trainer import train
from model.training.validation import Score, Validation
from model.weights import load_network, load_weights
from tests.model.conftest import ROOT, TINY
from tests.model.test_trainer import StopAfter, finetuning


@pytest.fixture
def validated(config, photographs):
    return dataclasses.replace(config, validation=[photographs / "a.png"], validate_every=2)


def test_validation_is_the_written_weights_on_the_central_crop(validated, photographs):
    validated = dataclasses.replace(validated, precision="float32")  # what the weights are read for below
    outcome = train(validated)
    with (validated.out / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    network, card = load_network(outcome.weights)
    images = load_images([photographs / "a.png"], 32)
    again = Validation(images, 32, validated.degradation, torch.device("cpu"))
    score, pictures = again(network.eval())
    assert score == outcome.validation
    assert float(rows[-1]["psnr"]) == pytest.approx(score.psnr, rel=1e-5)
    assert card.metrics["validation_psnr"] == score.psnr
    with Image.open(validated.out / "pictures" / "00.png") as strip:
        assert strip.size == (3 * 32, 32)
        assert strip.crop((32, 0, 64, 32)).tobytes() == pictures[0].tobytes()


def test_best_weights_are_those_of_the_best_validation(validated, monkeypatch):
    scores = iter([(20, 0.5, 0.1), (22, 0.4, 0.2), (21, 0.6, 0.1)])
    original = Validation.__call__

    def call(self, network):
        return trainer_module.Score(*next(scores)), original(self, network)[1]

    monkeypatch.setattr(Validation, "__call__", call)
    outcome = train(validated)
    _, best = load_weights(validated.out / "best.safetensors")
    assert (best.training["steps"], best.metrics["validation_psnr"]) == (4, 22)
    assert load_weights(outcome.weights)[1].training["steps"] == 6


class Killed(Exception):
    pass


@contextmanager
def killed_at(number, monkeypatch):
    """Ends a run in place of a step, as nothing that it could answer to."""

    def one_step(self):
        if self.step == number:
            raise Killed
        step(self)

    step = trainer_module.Trainer.one_step
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer_module.Trainer, "one_step", one_step)
        yield


def test_resumed_run_does_not_replace_better_weights(validated, monkeypatch):
    """Validated and saved at the same step, stopped after it; what comes then is worse."""
    scores = iter([(22, 0.5, 0.1), (21, 0.4, 0.2), (20, 0.6, 0.1)])
    original = Validation.__call__
    monkeypatch.setattr(
        Validation, "__call__", lambda self, network: (Score(*next(scores)), original(self, network)[1])
    )
    config = dataclasses.replace(validated, save_every=2, trackers=["none"])

    with killed_at(2, monkeypatch):
        train(config)
    train(dataclasses.replace(config, resume=True))
    assert load_weights(config.out / "best.safetensors")[1].training["steps"] == 2


@pytest.mark.parametrize("seed", [2**20, 2**40])
def test_large_seeds_draw_noise_too(config, seed):
    assert train(dataclasses.replace(config, noise=0.003, seed=seed, steps=1)).finished


def test_statistics_that_could_only_be_held_after_the_end_are_measured_as_ever(config):
    runs = [train(dataclasses.replace(config, freeze_after=s, out=config.out / str(s))) for s in (1.0, 0.99)]
    first, second = (load_weights(one.weights)[0] for one in runs)
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_held_out_photographs_are_not_trained_on(config, capsys):
    train(dataclasses.replace(config, holdout=1))
    assert "2 photographs and 1 for validation" in capsys.readouterr().out


def test_average_follows_the_weights(config):
    """Against the definition, from the weights after each step."""
    seen = []

    class Recording(trainer_module.WeightAverage):
        def update(self):
            super().update()
            seen.append([one.detach().clone() for one in self.network.parameters()])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "WeightAverage", Recording)
        outcome = train(dataclasses.replace(config, ema=0.9, lr=0.05))
    torch.manual_seed(config.seed)
    expected = [one.detach().clone() for one in trainer_module.build_network("unet", dict(TINY)).parameters()]
    for number, weights in enumerate(seen, start=1):
        decay = min(0.9, (1 + number) / (10 + number))
        expected = [decay * a + (1 - decay) * b for a, b in zip(expected, weights, strict=True)]
    found = load_network(outcome.weights)[0].parameters()
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b.detach())


def test_averaged_run_resumes_to_the_same_bits(validated, monkeypatch):
    drawn = {"noise": 0.003, "blur": "disc:2", "light": True, "jpeg": 60, "vary": True}
    config = dataclasses.replace(validated, ema=0.9, augment=True, **drawn)
    whole = train(dataclasses.replace(config, out=config.out / "whole"))
    cut = dataclasses.replace(config, out=config.out / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", StopAfter)
        assert not train(cut).finished
    resumed = train(dataclasses.replace(cut, resume=True))
    expected, found = load_weights(whole.weights)[0], load_weights(resumed.weights)[0]
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert (cut.out / "validation.csv").read_text() == (whole.weights.parent / "validation.csv").read_text()


@pytest.mark.parametrize("change", [{"memory": "device"}, {"sampling": "grid"}, {"clip_norm": 0.0}])
def test_other_ways_give_a_run_too(config, change):
    assert train(dataclasses.replace(config, **change)).finished


def test_where_the_photographs_lie_changes_nothing(config, photographs, tmp_path):
    prepare(PrepareConfig(photographs=[photographs], out=tmp_path / "store", smallest=32))
    runs = {
        "stream": config,
        "device": dataclasses.replace(config, memory="device"),
        "store": dataclasses.replace(config, photographs=[tmp_path / "store"]),
    }
    weights = [
        load_weights(train(dataclasses.replace(one, out=tmp_path / name)).weights)[0]
        for name, one in runs.items()
    ]
    for other in weights[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in weights[0].items())


def test_bfloat16_learns_what_float32_learns(config):
    runs = {
        precision: train(
            dataclasses.replace(config, precision=precision, steps=20, out=config.out / precision)
        )
        for precision in ("float32", "bfloat16")
    }
    exact, rough = (runs[name].terms["pixel"] for name in ("float32", "bfloat16"))
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.05)


def test_compiled_network_learns_the_same_and_leaves_the_same_files(config):
    config = dataclasses.replace(config, precision="float32")  # compiled code rounds bfloat16 elsewhere
    runs = [
        train(dataclasses.replace(config, steps=2, compile=mode, out=config.out / mode))
        for mode in ("none", "default")
    ]
    plain, compiled = (load_weights(one.weights)[0] for one in runs)
    assert list(plain) == list(compiled)
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], rtol=1e-4, atol=1e-5)


def test_frozen_batch_norm_keeps_its_statistics(config):
    first = train(config)
    second = train(finetuning(config, first.weights, freeze_batch_norm=True, lr=1e-2))
    before, after = load_weights(first.weights)[0], load_weights(second.weights)[0]
    running = [name for name in before if "running" in name]
    assert running and all(torch.equal(before[name], after[name]) for name in running)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_statistics_are_held_for_the_last_part_of_a_run(config, monkeypatch):
    """From the freezing step on they do not move; an interrupted run ends with the same bits."""
    config = dataclasses.replace(config, freeze_after=0.5, lr=1e-2, save_every=1)
    seen = []
    original = trainer_module.Trainer.one_step

    def one_step(self):
        seen.append([one.clone() for name, one in self.network.named_buffers() if "running" in name])
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "one_step", one_step)
        whole = train(dataclasses.replace(config, out=config.out / "whole"))
    moved = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(seen)]
    assert moved == [True, True, True, False, False]
    found = load_weights(whole.weights)[0]
    held = [tensor for name, tensor in found.items() if "running" in name]
    assert all(any(torch.equal(one, other) for other in held) for one in seen[-1])
    cut = dataclasses.replace(config, out=config.out / "cut")
    for looks in (2, 2):
        with monkeypatch.context() as patch:
            patch.setattr(StopAfter, "looks", looks)
            patch.setattr(trainer_module, "Interruption", StopAfter)
            train(cut)
        cut = dataclasses.replace(cut, resume=True)
    resumed = load_weights(train(cut).weights)[0]
    assert all(torch.equal(resumed[name], tensor) for name, tensor in found.items())


def test_tensorboard_gets_curves_and_pictures(validated):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(dataclasses.replace(validated, trackers=["tensorboard"]))
    events = EventAccumulator(str(validated.out / "logs" / "qkernel")).Reload()
    tags = events.Tags()
    assert {"loss", "pixel", "lr", "grad_norm", "validation/psnr"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6]
    picture = events.Images(tags["images"][0])[0].encoded_image_string
    assert struct.unpack(">II", picture[16:24]) == (96, 32)


def test_report_is_one_file_that_shows_everything(validated):
    train(validated)
    page = (validated.out / "report.html").read_text()
    # Nothing is fetched from anywhere; a namespace is a name only.
    rest = page.replace("http://www.w3.org/", "").replace("http://purl.org/", "")
    rest = rest.replace("http://creativecommons.org/", "")
    assert "http" not in rest.replace("https://matplotlib.org/", "")
    assert page.count("<svg") == 2 and "data:image/png;base64," in page
    for text in ("Validation", "PSNR", "Learning rate", "6 of 6 steps", "statistics_batches"):
        assert text in page


def test_sweep_trains_every_weight_and_compares_them(validated, monkeypatch, capsys):
    first = train(validated)
    config = finetuning(validated, first.weights, q_weights=[0.0, 0.5], lr=1e-2)
    outcomes = sweep(config)
    assert list(outcomes) == [0.0, 0.5]
    assert load_weights(config.out / "w_0.5" / "weights.safetensors")[1].loss["weight"] == 0.5
    with (config.out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["blurred", "w_0", "w_0.5"]
    assert float(rows[2]["psnr"]) == outcomes[0.5].validation.psnr
    with pytest.raises(UserError, match="holds an earlier sweep; --resume goes on"):
        sweep(config)

    # Interrupted in the second of two, it goes on there and repeats nothing.
    other = dataclasses.replace(config, out=config.out.with_name("other"))
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", SecondStopped)
        assert sweep(other) is None
    capsys.readouterr()
    resumed = sweep(dataclasses.replace(other, resume=True))
    assert "w_0: finished before" in capsys.readouterr().out
    assert list(resumed) == [0.5]
    with (other.out / "results.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    # Nor does it when there is nothing left to do, and the table is whole all the same.
    assert sweep(dataclasses.replace(other, resume=True)) == {}
    with (other.out / "results.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    assert "blurred" in capsys.readouterr().out


class SecondStopped(StopAfter):
    """Lets the first run through and stops the second."""

    runs = 0

    def __init__(self):
        super().__init__()
        SecondStopped.runs += 1
        self.looks = 3 if SecondStopped.runs == 2 else 10**6


def test_second_stage_follows_the_first(validated, tmp_path, monkeypatch, capsys):
    second = tmp_path / "second.yaml"
    values = {
        "out": str(tmp_path / "two"),
        "steps": 2,
        "crop": 32,
        "batch": 2,
        "q_weight": 0.05,
        "device": "cpu",
    }
    second.write_text(yaml.safe_dump({**values, "statistics_batches": 2, "trackers": ["none"]}))
    run(dataclasses.replace(validated, then=second))
    _, card = load_weights(tmp_path / "two" / "weights.safetensors")
    assert (card.stage, card.loss["weight"], card.network_args) == ("finetune", 0.05, TINY)
    assert card.training["config"]["weights"] == str(validated.out / "weights.safetensors")
    # Resumed when both are finished, neither is repeated.
    capsys.readouterr()
    run(dataclasses.replace(validated, then=second, resume=True))
    assert capsys.readouterr().out.count("finished before") == 2
    second.write_text(yaml.safe_dump({**values, "q_weight": -1.0}))
    capsys.readouterr()
    with pytest.raises(UserError, match="--q_weight must not be negative"):
        run(dataclasses.replace(validated, then=second, out=tmp_path / "never"))
    assert not (tmp_path / "never").exists()


def test_a_run_killed_before_its_first_checkpoint_is_not_finished(validated, tmp_path, monkeypatch):
    config = dataclasses.replace(validated, validate_every=2, save_every=0)
    weights = train(dataclasses.replace(config, out=tmp_path / "first")).weights
    one = finetuning(config, weights, q_weights=[0.5], lr=1e-2)
    with killed_at(3, monkeypatch):
        train(config)
    with killed_at(3, monkeypatch):
        sweep(one)
    for out in (config.out, one.out / "w_0.5"):
        assert load_weights(out / "weights.safetensors")[1].training["steps"] == 2
    with pytest.raises(UserError, match="holds no interrupted run"):
        run(dataclasses.replace(config, resume=True))
    outcomes = sweep(dataclasses.replace(one, resume=True))
    assert list(outcomes) == [0.5] and outcomes[0.5].finished


def test_pairs_are_trained_on_as_they_are(config, photographs, tmp_path, capsys):
    """Inputs that are the targets: the identity has no error, and no blur is added."""
    for place in ("lq", "gt"):
        folder = tmp_path / "pairs" / place
        folder.mkdir(parents=True)
        for path in (photographs / "a.png", photographs / "b.jpg"):
            (folder / path.name).write_bytes(path.read_bytes())
    same = dataclasses.replace(
        config, photographs=[tmp_path / "pairs"], network_args={**TINY, "output_gain": 0.0}, lr=1e-30
    )
    assert train(same).terms["pixel"] == 0
    for name, value in {"blur": "disc:3", "noise": 0.01, "jpeg": 50, "light": True, "vary": True}.items():
        with pytest.raises(
            UserError, match=f"--{name} {value} is for photographs that are blurred here, not"
        ):
            train(dataclasses.replace(same, overwrite=True, **{name: value}))
    told = dataclasses.replace(same, network="ddnet", network_args={"width": 8, "blocks": 1}, overwrite=True)
    with pytest.raises(UserError, match="ddnet must be told the blur, and pairs do not say theirs"):
        train(told)
    _, card = load_weights(same.out / "weights.safetensors")
    assert card.training["pairs"] is True
    tuned = finetuning(
        same, same.out / "weights.safetensors", photographs=[tmp_path / "pairs" / "gt"], steps=1
    )
    assert train(tuned).finished
    assert "was trained on pairs; crops here have 5 x 5 box blur, 8 bits" in capsys.readouterr().out
    blurred = dataclasses.replace(same, photographs=[tmp_path / "pairs" / "gt"], out=tmp_path / "other")
    assert train(blurred).terms["pixel"] > 0.005


def test_epochs_count_crops(config):
    config = dataclasses.replace(config, epochs=2.5, epoch_crops=20, batch=4)
    assert (config.total_steps(), config.epoch_steps(), config.total_steps(2)) == (13, 5, 7)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_whole(path):
    from model.command_line import load_config
    from model.training.command import _FINETUNE

    text = path.read_text()
    command = (
        _FINETUNE
        if "finetune" in path.stem
        else dataclasses.replace(_FINETUNE, config="model.training.config:TrainConfig")
    )
    config = load_config(path, "train", command)
    config.photographs = [Path("photographs")]
    if isinstance(config, FinetuneConfig):
        config.weights = Path("weights.safetensors")
    config.check()
    assert "chosen" in text and "paper" in text

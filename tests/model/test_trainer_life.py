"""The life of a run: signals, kills, full disks, numbers that are not finite; nothing good is ever lost."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

import model.training.start as start_module
import model.training.trainer as trainer_module
from model.data.batches import StreamedBatches
from model.data.crops import CropPlan
from model.data.sources import load_images
from model.errors import UserError
from model.training.checkpoints import Checkpoints
from model.training.interruption import Interruption
from model.training.trainer import train
from model.weights import load_network, load_weights
from tests.model.conftest import ROOT
from tests.model.test_trainer import StopAfter


class StopAtOnce(Interruption):
    """Asks for an end before the first look."""

    def __enter__(self):
        super().__enter__()
        self.requested = "SIGTERM"
        return self


def start(config, tmp_path, **changes) -> subprocess.Popen:
    """`python -m model train` as a user would start it, long enough to be stopped."""
    values = {**config.recorded(), "steps": 100_000, "save_every": 5, **changes}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    return subprocess.Popen(
        [sys.executable, "-m", "model", "train", "--config", str(file)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_checkpoint(process, folder, count=1) -> None:
    end = time.monotonic() + 90
    while len(Checkpoints.found(folder / "checkpoints")) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "no checkpoint came"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_says_how_to_go_on(config, tmp_path, number):
    process = start(config, tmp_path)
    wait_for_checkpoint(process, config.out)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert f"stopped by {signal.Signals(number).name} after step" in output
    assert f"go on with: python -m model train --resume --out {config.out}" in output
    step = int(Checkpoints.found(config.out / "checkpoints")[-1].name[5:])
    assert load_weights(config.out / "weights.safetensors")[1].training["steps"] == step
    saved = yaml.safe_load((config.out / "config.yaml").read_text())
    (config.out / "config.yaml").write_text(yaml.safe_dump({**saved, "steps": step + 2}))
    resumed = subprocess.run(
        [sys.executable, "-m", "model", "train", "--resume", "--out", config.out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert f"from step {step}" in resumed.stdout and f"finished {step + 2} steps" in resumed.stdout


def test_killed_run_leaves_the_last_good_checkpoint(config, tmp_path):
    process = start(config, tmp_path, save_every=1)
    wait_for_checkpoint(process, config.out, count=2)
    process.kill()
    process.communicate()
    # Whatever was being written then is there whole or not at all.
    load_network(config.out / "weights.safetensors")
    step = int(Checkpoints.found(config.out / "checkpoints")[-1].name[5:])
    resumed = train(dataclasses.replace(config, steps=step + 1, resume=True))
    assert (resumed.finished, resumed.step) == (True, step + 1)


def test_second_signal_ends_at_once():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested == "SIGTERM"
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    assert ended.value.code == 128 + signal.SIGTERM


def test_keeps_the_newest_checkpoints(config, monkeypatch):
    kept = []
    original = Checkpoints.save

    def save(self, step):
        path = original(self, step)
        kept.append([one.name for one in self.found(self.folder)])
        return path

    monkeypatch.setattr(Checkpoints, "save", save)
    train(dataclasses.replace(config, save_every=1, keep=2))
    assert kept[0] == ["step-00000001"]
    assert kept[-1] == ["step-00000004", "step-00000005"]
    assert not (config.out / "checkpoints").exists()


def test_full_disk_keeps_what_was_saved_before(config, monkeypatch):
    calls = []

    def save_state(self, folder, **_):
        calls.append(folder)
        if len(calls) == 2:
            (trainer_module.Path(folder) / "model.safetensors").write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return original(self, folder, safe_serialization=True)

    original = trainer_module.Accelerator.save_state
    monkeypatch.setattr(trainer_module.Accelerator, "save_state", save_state)
    with pytest.raises(
        UserError, match=r"step-00000004: No space left on device; the last good state is .*02"
    ):
        train(dataclasses.replace(config, save_every=2))
    assert [path.name for path in (config.out / "checkpoints").iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    assert train(dataclasses.replace(config, resume=True)).finished


def test_full_disk_is_said_in_words_where_torch_does_not(config, monkeypatch):
    def save_state(self, *_, **__):
        raise RuntimeError(
            "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0\nframe #0: ..."
        )

    monkeypatch.setattr(trainer_module.Accelerator, "save_state", save_state)
    with pytest.raises(
        UserError, match=r"step-00000002: a file could not be written, and its disk has \d+ MiB"
    ):
        train(dataclasses.replace(config, save_every=2))


@pytest.mark.parametrize("kept", [0, 7, -4, -1])
def test_line_that_was_cut_short_is_dropped(config, monkeypatch, kept):
    """Nothing, a part of the header, and parts of the line of step 2 are left of the log."""
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", StopAfter)
        train(config)
    log = config.out / "log.csv"
    log.write_bytes(log.read_bytes()[:kept])
    assert train(dataclasses.replace(config, resume=True)).finished
    with log.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4", "6"]


def test_damaged_checkpoint_is_one_line(config, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", StopAtOnce)
        train(config)
    (Checkpoints.found(config.out / "checkpoints")[-1] / "optimizer.bin").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be loaded, or belongs to another configuration"):
        train(dataclasses.replace(config, resume=True))


def losing(at: int, term: str):
    """A loss of which one term is infinite or NaN in one call, for the third crop alone."""
    calls = []

    def loss(restored, sharp):
        calls.append(1)
        pixel, q = (restored - sharp).abs().mean(), restored.mean()
        if len(calls) == at:
            pixel, q = (pixel * float("nan"), q) if term == "pixel" else (pixel, q * float("inf"))
        total = pixel - 0.01 * q
        return total, {"pixel": pixel.detach(), "q": q.detach()}

    return loss


@pytest.mark.parametrize("term", ["pixel", "q"])
def test_term_and_step_are_named_and_the_weights_stand_still(config, monkeypatch, term):
    config = dataclasses.replace(config, save_every=2, log_every=100)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "build_loss", lambda _: losing(4, term))
        with pytest.raises(UserError, match=f"the term '{term}' is not finite at step 4") as failed:
            train(config)
    assert f"the last good state is {config.out / 'checkpoints' / 'step-00000002'}" in str(failed.value)
    assert "a lower --lr than 0.001 may help" in str(failed.value)
    # Going on from there, with the loss as it should be, is as if nothing had happened.
    monkeypatch.setattr(trainer_module, "build_loss", lambda _: losing(0, term))
    resumed = train(dataclasses.replace(config, resume=True))
    whole = train(dataclasses.replace(config, out=config.out / "whole"))
    expected, found = load_weights(whole.weights)[0], load_weights(resumed.weights)[0]
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_signal_does_not_hide_a_loss_that_is_not_finite(config, monkeypatch):
    """Stopped between the step that failed and the reading that would have shown it."""

    config = dataclasses.replace(config, log_every=100)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", StopAfter)
        patch.setattr(trainer_module, "build_loss", lambda _: losing(2, "pixel"))
        with pytest.raises(
            UserError, match="the term 'pixel' is not finite at step 2; no checkpoint was due"
        ):
            train(config)
    assert not (config.out / "weights.safetensors").exists()
    assert not Checkpoints.found(config.out / "checkpoints")


def test_crop_at_fault_is_named(config, monkeypatch, photographs):
    """A network that fails on the brightest crop of the run alone."""
    config = dataclasses.replace(config, freeze_batch_norm=True, batch=8)
    plan = CropPlan(load_images([photographs], config.crop), config.crop, config.seed)
    means = []
    for step in range(config.steps):
        sharp, _ = StreamedBatches(plan, config.batch, torch.device("cpu")).at(step)
        means.append(config.degradation(sharp).mean((1, 2, 3)))
    brightest = torch.cat(means).topk(2)
    number = int(brightest.indices[0])
    places = plan.places(number, 1)

    class Touchy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(()))

        def forward(self, image):
            bright = image.mean((1, 2, 3), keepdim=True) > brightest.values.mean()
            return image * self.gain * torch.where(bright, float("inf"), 1.0)

    for module in (trainer_module, start_module):
        monkeypatch.setattr(module, "build_network", lambda *_: Touchy())
    with pytest.raises(UserError) as failed:
        train(config)
    assert (
        f"is not finite at step {number // config.batch + 1}, in the crop at x = {places.left[0]}, "
        f"y = {places.top[0]} of {plan.images.names[places.image[0]]}; "
    ) in str(failed.value)


def test_earlier_step_of_another_configuration_is_refused(config, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", StopAtOnce)
        train(config)
    other = dataclasses.replace(config, resume=True, network_args={"widths": [4, 8], "depth": 2})
    with pytest.raises(UserError, match="belongs to another configuration"):
        train(other)

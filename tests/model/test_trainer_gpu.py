"""Training on a GPU with what is automatic there: half precision, compilation, photographs on the device."""

import csv
import dataclasses
import os
import subprocess
import sys

import pytest
import torch
import yaml

import model.training.trainer as trainer_module
from model.data import constants
from model.data.batches import ResidentBatches, StreamedBatches, gather_crops
from model.data.crops import CropPlan
from model.data.degradation import Degradation
from model.data.sources import load_images
from model.training.trainer import train
from model.weights import load_weights
from tests.model.conftest import ROOT
from tests.model.test_trainer import StopAfter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def on_gpu(config):
    return dataclasses.replace(config, device="cuda", steps=12, lr=1e-2, ema=0.9, validate_every=6, holdout=1)


@pytest.mark.parametrize("precision", ["auto", "float16", "float32"])
@pytest.mark.parametrize("compile_mode", ["none", "auto"])
def test_run_learns_and_resumes(on_gpu, monkeypatch, precision, compile_mode):
    config = dataclasses.replace(on_gpu, precision=precision, compile=compile_mode)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", StopAfter)
        assert not train(config).finished
    outcome = train(dataclasses.replace(config, resume=True))
    assert (outcome.finished, outcome.step) == (True, 12)
    with (config.out / "log.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("blur", ["box:5", "disc:2.5", "gaussian:1.6"])
@pytest.mark.parametrize("compiled", [False, True])
def test_degradation_is_that_of_the_cpu_byte_for_byte(photographs, blur, compiled, light):
    crop = torch.from_numpy(load_images([photographs / "a.png"], 64).image(0).copy())[None, None]
    degrade = Degradation(blur, light=light)
    there = constants.compiled(degrade) if compiled else degrade
    got, want = there(crop.cuda()).cpu(), degrade(crop)
    assert torch.equal((got * 255).round(), (want * 255).round())
    # CUDA divides by a number through its reciprocal: byte / 255 may differ in the last bits.
    torch.testing.assert_close(got, want, rtol=2 * torch.finfo(want.dtype).eps, atol=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_drawn_degradations_are_within_their_bounds(photographs, compiled):
    crop = torch.from_numpy(load_images([photographs / "a.png"], 64).image(0).copy())[None, None]
    batch = crop.repeat(64, 1, 1, 1).cuda()
    degrade = Degradation("disc:3", noise=1e-4, jpeg=75, light=True, vary=True)
    there = constants.compiled(degrade) if compiled else degrade
    first, again, other = (there(batch, torch.Generator("cuda").manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    worst = Degradation("disc:3", noise=1e-4, jpeg=75, light=True)(batch, torch.Generator("cuda"))
    lost, most = ((one - batch / 255).abs().mean((1, 2, 3)) for one in (first, worst))
    assert lost.min() < most.mean() / 3 and lost.max() < 1.1 * most.max()


@pytest.mark.parametrize("compiled", [False, True])
def test_crops_are_those_of_the_cpu(photographs, compiled):
    plan = CropPlan(load_images([photographs], 32), 32, 1, True)
    gather = constants.compiled(gather_crops) if compiled else gather_crops
    resident = ResidentBatches(plan, 4, torch.device("cuda"), gather=gather)
    streamed = StreamedBatches(plan, 4, torch.device("cuda"))
    expected = StreamedBatches(plan, 4, torch.device("cpu"))
    for step in (0, 1, 127, 128):
        for batches in (resident, streamed):
            assert torch.equal(batches.at(step)[0].cpu(), expected.at(step)[0])


def test_steps_do_not_wait_for_the_device(on_gpu):
    """torch counts every wait as an error between two readings of the log."""
    config = dataclasses.replace(on_gpu, compile="none", log_every=100, validate_every=100, save_every=0)
    original = trainer_module.Trainer.one_step

    def watched(self):
        torch.cuda.set_sync_debug_mode("error" if self.step else "default")
        try:
            original(self)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "one_step", watched)
        assert train(config).finished


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_synchronised_statistics_make_two_processes_one(on_gpu, tmp_path):
    common = dataclasses.replace(on_gpu, precision="float32", compile="none", holdout=0, validate_every=0)
    alone = train(dataclasses.replace(common, batch=8, out=tmp_path / "alone"))
    together = dataclasses.replace(common, batch=4, sync_batch_norm=True, out=tmp_path / "together")
    file = tmp_path / "together.yaml"
    file.write_text(yaml.safe_dump({**together.recorded(), "device": "auto"}))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    subprocess.run(
        [sys.executable, *launcher, "-m", "model", "train", "--config", str(file)],
        cwd=ROOT,
        env=dict(os.environ),
        check=True,
        timeout=300,
    )
    a, b = load_weights(alone.weights)[0], load_weights(together.out / "weights.safetensors")[0]
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=1e-3, atol=1e-4)

"""What the tests of the application share: a run that takes a second, and folders of real photographs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from model import shipped
from model.networks import build_network
from model.training.config import TrainConfig
from model.weights import Card, save_weights
from tests.photographs import scikit_image_photograph

ROOT = Path(__file__).resolve().parents[2]
# Small enough for a step of milliseconds; still pools, bridges and skips.
TINY = {"widths": [4, 8], "depth": 1}


@pytest.fixture(autouse=True)
def one_thread():
    """At these sizes threads that wait for each other cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """A folder with three real photographs, 160 x 144, one of them in a subfolder."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "more").mkdir()
    for name, target in (("astronaut.png", "a.png"), ("coffee.png", "b.jpg"), ("camera.png", "more/c.webp")):
        with Image.open(scikit_image_photograph(name)) as picture:
            picture.crop((150, 60, 310, 204)).save(folder / target)
    return folder


@pytest.fixture
def config(photographs, tmp_path) -> TrainConfig:
    """A run of a second."""
    return TrainConfig(
        photographs=[photographs],
        out=tmp_path / "run",
        network_args=dict(TINY),
        steps=6,
        batch=2,
        crop=32,
        warmup=2,
        log_every=2,
        save_every=0,
        statistics_batches=2,
        ema=0.0,
        trackers=["none"],
        device="cpu",
    )


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """Weights of a tiny U-Net that changes its input."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    network = build_network("unet", {**TINY, "output_gain": 0.2})
    save_weights(path, network, Card("unet", dict(TINY)))
    return path


@pytest.fixture
def shipped_folder(tmp_path, monkeypatch) -> Path:
    """Tiny U-Nets in the place of those that come with the program."""
    folder = tmp_path / "shipped"
    trained = {"box": {"blur": "box:5"}, "focus": {"blur": "disc:4", "vary": True}}
    names = [(kind, name) for kind, dial in shipped.DIALS.items() for name in (dial.soft, dial.sharp)]
    for seed, (kind, name) in enumerate(names):
        torch.manual_seed(seed)
        network = build_network("unet", {**TINY, "output_gain": 0.2})
        card = Card("unet", dict(TINY), training={"config": trained[kind]})
        save_weights(folder / f"{name}.safetensors", network, card)
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


@pytest.fixture
def run_model():
    """Runs `python -m model ...` as a user would and returns the finished process."""

    def run(*words: object, timeout: float = 120) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "model", *map(str, words)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run

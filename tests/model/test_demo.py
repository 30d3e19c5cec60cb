"""The demonstration, whole, with a tiny run on real photographs."""

import csv

import numpy as np
import pytest
from PIL import Image

import model.training.trainer as trainer_module
from model.demo.command import demo
from model.demo.comparison import Panel, Strip, draw_comparison
from model.demo.config import DemoConfig
from model.demo.scenes import HeldOut, Scenes, scikit_image_scenes
from model.weights import load_weights
from tests.model.conftest import TINY
from tests.model.test_trainer import StopAfter


@pytest.fixture
def scenes(photographs) -> Scenes:
    return Scenes(
        training=[photographs / "a.png", photographs / "b.jpg"],
        held_out=[HeldOut(photographs / "more" / "c.webp", "camera", left=20, top=30, side=40)],
    )


@pytest.fixture
def config(tmp_path) -> DemoConfig:
    return DemoConfig(
        out=tmp_path / "demo",
        steps=2,
        finetune_steps=1,
        batch=2,
        crop=32,
        network_args=dict(TINY),
        device="cpu",
    )


def test_demo_leaves_table_picture_and_weights(config, scenes, capsys):
    result = demo(config, scenes)
    output = capsys.readouterr().out
    with (config.out / "results.csv").open(newline="") as file:
        assert file.readline().strip() == "method,psnr,ssim,q,lpips,seconds"
        file.seek(0)
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["blurred", "mae", "mae_q"]
    for name, row in rows.items():
        assert 5 < float(row["psnr"]) < 60
        assert 0 < float(row["ssim"]) <= 1
        assert float(row["q"]) > 0
        assert (float(row["seconds"]) == 0) == (name == "blurred")
    with Image.open(config.out / "comparison.png") as picture:
        assert picture.width > 1000
    _, card = load_weights(result.weights["mae_q"])
    assert (card.stage, card.training["steps"]) == ("finetune", 1)
    assert card.loss["weight"] == config.q_weight
    assert f"python -m model deblur photo.jpg --weights {result.weights['mae_q']}" in output
    assert "| U-Net, MAE - w Q |" in output


def test_interrupted_demo_stops_after_saving(config, scenes, monkeypatch, capsys):
    monkeypatch.setattr(StopAfter, "looks", 1)
    monkeypatch.setattr(trainer_module, "Interruption", StopAfter)
    assert demo(config, scenes) is None
    assert (config.out / "mae" / "weights.safetensors").is_file()
    assert not (config.out / "results.csv").exists()
    assert "stopped by SIGINT after step 1 of 2" in capsys.readouterr().out


def test_scenes_are_there_and_held_out_from_training():
    scenes = scikit_image_scenes()
    training = {path.name for path in scenes.training}
    assert not training & {held.path.name for held in scenes.held_out}
    # One scene from two places: never one to train on and one to be judged by.
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= training
    for held in scenes.held_out:
        with Image.open(held.path) as picture:
            assert held.left + held.side <= picture.width
            assert held.top + held.side <= picture.height


def test_comparison_shows_the_crop_without_smoothing(tmp_path):
    """The pixels of the crop, and nothing between them, are found in the drawing."""
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[16:32, 16:32] = [200, 30, 90]
    pixels[16:24, 16:24] = [30, 200, 90]
    panel = Panel("before", pixels, "caption")
    strip = Strip("photo", pixels, [panel], left=16, top=16, side=16)
    draw_comparison(tmp_path / "comparison.png", [strip], "title", "foot")
    drawn = np.asarray(Image.open(tmp_path / "comparison.png").convert("RGB"))
    # The right half of the drawing is the zoomed crop: a quarter of it green, the rest red.
    right = drawn[:, drawn.shape[1] // 2 + 10 :].reshape(-1, 3)
    green, red = ((right == colour).all(1).sum() for colour in ([30, 200, 90], [200, 30, 90]))
    assert green > 10_000
    assert red / green == pytest.approx(3, rel=0.03)

"""The demonstration, whole, with a tiny run on real photographs."""

import csv
import shlex

import numpy as np
import pytest
from PIL import Image

import model.training.trainer as trainer_module
from model import shipped
from model.__main__ import COMMANDS
from model.command_line import main, parse
from model.demo.command import demo
from model.demo.comparison import Panel, Strip, draw_comparison
from model.demo.config import DemoConfig
from model.demo.scenes import HeldOut, Scenes, scikit_image_scenes
from model.errors import UserError
from model.weights import load_weights
from tests.model.test_trainer import StopAfter


@pytest.fixture
def scenes(photographs) -> Scenes:
    return Scenes(
        training=[photographs / "a.png", photographs / "b.jpg"],
        held_out=[HeldOut(photographs / "more" / "c.webp", "camera", left=20, top=30, side=40)],
    )


@pytest.fixture
def config(tmp_path, shipped_folder) -> DemoConfig:
    return DemoConfig(out=tmp_path / "demo", steps=2, batch=2, crop=32, device="cpu")


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
    made, card = load_weights(result.weights["mae_q"])
    assert (card.stage, card.training["steps"]) == ("finetune", 2)
    assert card.loss["weight"] == config.q_weight
    assert f"python -m model deblur photo.jpg --weights {result.weights['mae_q']}" in output
    assert "| U-Net, MAE - w Q |" in output
    # It starts from the weights that come with the program, and leaves their statistics as they are.
    start, _ = load_weights(result.weights["mae"])
    assert result.weights["mae"] == shipped.shipped(shipped.MAE)
    assert any((made[name] != tensor).any() for name, tensor in start.items())
    assert all((made[name] == tensor).all() for name, tensor in start.items() if "running" in name)


def test_shown_command_fine_tunes_as_the_demonstration_does(config, scenes, capsys):
    result = demo(config, scenes)
    output = capsys.readouterr().out.replace("\\\n", "")
    (line,) = [line for line in output.splitlines() if "model finetune FOLDER" in line]
    shown = parse("finetune", COMMANDS["finetune"], shlex.split(line)[4:]).recorded()
    done = load_weights(result.weights["mae_q"])[1].training["config"]
    of_the_demonstration = {
        *("photographs", "out", "network", "network_args", "log_every", "save_every", "trackers"),
        *("overwrite", "device"),
    }
    different = {name for name, value in shown.items() if done[name] != value}
    assert different <= of_the_demonstration


def test_given_weights_are_fine_tuned_and_not_called_mae(config, scenes, tiny_weights, capsys):
    config.weights = tiny_weights
    result = demo(config, scenes)
    output = capsys.readouterr().out
    assert result.weights["mae"] == tiny_weights
    assert f"The network is that of {tiny_weights}." in output
    assert "| before " in output and "U-Net, MAE" not in output
    assert "No network was trained on them" not in output


def test_weights_are_not_replaced_while_they_are_compared(config, scenes):
    made = demo(config, scenes).weights["mae_q"]
    before = made.read_bytes()
    config.weights = made
    with pytest.raises(UserError, match="would be replaced by this run; give another --out"):
        demo(config, scenes)
    assert made.read_bytes() == before


def test_without_the_weights_folder_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "nowhere")
    assert main(COMMANDS, ["demo", "--out", str(tmp_path / "demo")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "the weights that come with this program are not there" in printed.err
    assert not (tmp_path / "demo").exists()


def test_interrupted_demo_stops_after_saving(config, scenes, monkeypatch, capsys):
    monkeypatch.setattr(StopAfter, "looks", 1)
    monkeypatch.setattr(trainer_module, "Interruption", StopAfter)
    assert demo(config, scenes) is None
    assert (config.out / "mae_q" / "weights.safetensors").is_file()
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

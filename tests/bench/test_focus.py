"""The records of the weights for photographs out of focus and of the dial, made with tiny networks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

from bench import dial, focus, record
from bench.__main__ import main
from model import shipped
from model.errors import UserError
from model.networks import build_network
from model.weights import Card, save_weights
from tests.photographs import scikit_image_photograph

TINY = {"widths": [4, 8], "depth": 1}
TRAINED = {
    "box": {"blur": "box:5"},
    "focus": {"blur": "disc:3", "noise": 1e-4, "jpeg": 75, "light": True, "vary": True},
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Tiny shipped weights, a Kodak and a DPDD of one picture each, three photographs, and scratch space."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(record, "SCRATCH", tmp_path / "scratch")
    for kind, pair in shipped.DIALS.items():
        for seed, name in enumerate((pair.soft, pair.sharp)):
            torch.manual_seed(seed)
            network = build_network("unet", {**TINY, "output_gain": 0.2})
            config = {"crop": 64, "holdout": 2, "seed": 0, "noise": 0.0, "quantise": True, **TRAINED[kind]}
            card = Card("unet", dict(TINY), training={"config": config})
            save_weights(tmp_path / "weights" / f"{name}.safetensors", network, card)
    with Image.open(scikit_image_photograph("astronaut.png")) as picture:
        for place in ("kodak/one.png", "photographs/a.png", "photographs/b.png"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            picture.crop((100, 0, 400, 280)).save(tmp_path / place)
        picture.crop((0, 200, 200, 400)).save(tmp_path / "photographs/c.png")
        for kind, one in (("sharp", picture), ("blur", picture.reduce(4).resize(picture.size))):
            (tmp_path / "dpdd/test" / kind).mkdir(parents=True)
            one.save(tmp_path / "dpdd/test" / kind / "one.png")
    return tmp_path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_blur_and_the_real_pairs_are_measured(folder):
    control = str(folder / "weights" / f"{shipped.FOCUS.soft}.safetensors")
    words = ["focus", "--data", str(folder), "--limit", "1", "--out", str(folder), "--control", control]
    assert main(words) == 0
    with Image.open(folder / "focus.jpg") as picture:
        assert picture.width > 1000
    rows = {(row["protocol"], row["method"]): row for row in read(folder / "focus_cpu.csv")}
    ours = ["unet_mae", "unet_focus", f"dial at {shipped.FOCUS.default:g}", "unet_focus_q"]
    methods = ["blurred", *ours, "w = 0, the control"]
    blurs = (*focus.BLURS, focus.REAL, focus.REAL_REDUCED)
    assert list(rows) == [(blur, name) for blur in blurs for name in methods]
    sides = [
        Image.open(folder / "scratch/focus/dpdd_4" / kind / "one.png").size for kind in ("sharp", "blur")
    ]
    assert sides == [(128, 128)] * 2
    blurred = [float(rows[blur, "blurred"]["psnr"]) for blur in focus.BLURS]
    assert blurred == sorted(blurred, reverse=True)
    text = (folder / "focus_cpu.md").read_text()
    by_blur = text.partition("## By blur")[2].partition("##")[0]
    lines = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in by_blur.splitlines()]
    shown = {(line[0], line[1]): line[2:] for line in lines if len(line) == 6}
    for (blur, name), row in rows.items():
        assert row["data"] == ("kodak" if blur in focus.BLURS else "dpdd")
        assert float(shown[blur, name][0]) == pytest.approx(float(row["psnr"]), abs=0.006)
        assert float(shown[blur, name][2]) == pytest.approx(float(row["q"]), abs=6e-5)
    for words in ("disc of radius 3 in amounts of light", "JPEG of quality 90", "blurred as photographed"):
        assert words in text


def test_the_dial_is_chosen_where_psnr_does_not_fall(folder, capsys):
    words = ["dial", "--photographs", str(folder / "photographs"), "--out", str(folder)]
    assert main(words) == 0
    rows = read(folder / "dial_focus.csv")
    # Two photographs were kept from training, and each is blurred by four radii.
    assert [(float(row["sharpness"]), row["pictures"]) for row in rows] == [(i / 8, "8") for i in range(9)]
    points = [dial.Point(float(row["sharpness"]), 8, *(float(row[m]) for m in dial.METRICS)) for row in rows]
    assert f"stands at {dial.chosen(points):g} by itself" in capsys.readouterr().out
    psnr = [30.0, 30.1, 29.9, 30.0, 29.0]
    points = [dial.Point(i / 4, 1, value, 0.9, 0.1) for i, value in enumerate(psnr)]
    assert dial.chosen(points) == 0.75
    assert dial.chosen(points[:1]) == 0


def test_other_photographs_than_the_training_s_are_refused(folder):
    (folder / "photographs/b.png").unlink()
    assert main(["dial", "--photographs", str(folder / "photographs"), "--out", str(folder)]) == 2


@pytest.mark.parametrize("blur", shipped.DIALS)
def test_the_shipped_dial_stands_where_its_record_says(blur):
    path = record.RESULTS / f"dial_{blur}.csv"
    points, _ = record.read(path, dial.Point)
    assert shipped.DIALS[blur].default == dial.chosen(points)


def test_shipped_weights_are_named_where_they_are_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="take a whole checkout"):
        focus._shipped()

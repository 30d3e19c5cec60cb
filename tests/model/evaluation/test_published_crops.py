"""The paper's own results under our metrics: the numbers that pin what we measure."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from model.evaluation.command import run
from model.evaluation.config import EvaluateConfig
from tests.photographs import data_folder

KODIM19 = {
    "blurred": 24.525,
    "_b_ddnet": 28.793,
    "_XYD": 37.601,
    "_al": 31.284,
    "_mlm": 40.911,
    "_mrl": 31.568,
    "_mw": 40.004,
    "_FP": 32.473,
    "_SDM": 32.316,
    "_b_Wiener": 23.961,
    "_b_r_onlyMAE": 34.048,
    "_b_r_QSharp": 34.188,
}
CARTRIDGE = {
    "blurred": 18.61,
    "_ifan": 20.34,
    "_restormer": 21.40,
    "_XYD": 26.30,
    "_QVanilla": 25.70,
    "_QFT": 25.15,
}


def decibels(folder) -> dict[str, float]:
    with (folder / "results.csv").open(newline="") as file:
        return {row["method"]: float(row["psnr"]) for row in csv.DictReader(file)}


def test_results_for_a_blur_that_is_made_here(tmp_path):
    theirs = data_folder("mmsp2024") / "MMSP_Comparisons"
    shutil.copy(theirs / "kodim19_original.png", tmp_path / "kodim19.png")
    methods = [f"{suffix}=folder:{theirs},suffix={suffix}" for suffix in KODIM19 if suffix != "blurred"]
    config = EvaluateConfig(
        photographs=[tmp_path / "kodim19.png"],
        protocol="paper-kodak",
        methods=methods,
        lpips=False,
        out=tmp_path / "out",
    )
    assert run(config) == 0
    assert decibels(tmp_path / "out") == pytest.approx(KODIM19, abs=6e-4)


def test_results_for_a_blur_that_was_photographed(tmp_path):
    theirs = data_folder("mmsp2024") / "RealWorldComparisons"
    for kind in ("original", "blurry"):
        (tmp_path / kind).mkdir()
        shutil.copy(theirs / f"cartridge_9_cr_{kind}.png", tmp_path / kind / "cartridge_9_cr.png")
    methods = [f"{suffix}=folder:{theirs},suffix={suffix}" for suffix in CARTRIDGE if suffix != "blurred"]
    config = EvaluateConfig(
        photographs=[tmp_path / "original"],
        blurred=tmp_path / "blurry",
        protocol="pairs",
        methods=methods,
        lpips=False,
        out=tmp_path / "out",
    )
    assert run(config) == 0
    assert decibels(tmp_path / "out") == pytest.approx(CARTRIDGE, abs=6e-3)


def test_our_methods_meet_theirs_by_the_command(tmp_path):
    """All the way: protocol, operator (mRL needs its clipping), float64, truncation, file."""
    theirs = data_folder("mmsp2024") / "MMSP_Comparisons"
    shutil.copy(theirs / "kodim19_original.png", tmp_path / "kodim19.png")
    config = EvaluateConfig(
        photographs=[tmp_path / "kodim19.png"],
        protocol="paper-circular",
        methods=["mlm", "mrl"],
        lpips=False,
        out=tmp_path / "out",
    )
    run(config)
    found = decibels(tmp_path / "out")
    assert found["mlm"] == pytest.approx(40.911, abs=6e-4)
    assert found["mrl"] == pytest.approx(31.568, abs=6e-4)
    kept = []
    for file in (tmp_path / "out" / "cache").iterdir():
        with np.load(file) as arrays:
            kept.append(arrays["restored"].tobytes())
    pictures = (np.array(Image.open(theirs / f"kodim19_{name}.png")) for name in ("mlm", "mrl"))
    assert sorted(kept) == sorted(picture.tobytes() for picture in pictures)

"""Measuring weights on photographs, as a command and as a function."""

import csv
import shutil

import numpy as np
import pytest

from model.classical.method import Knows
from model.data.pairs import PAIR_FOLDERS
from model.data.photographs import find_photographs, load_luma
from model.data.sources import load_images
from model.evaluation.command import read_pairs, run
from model.evaluation.config import EvaluateConfig
from model.evaluation.evaluator import evaluate
from model.evaluation.methods import Identity
from model.evaluation.metrics import psnr, sharpness_q
from model.evaluation.protocol import Protocol
from model.evaluation.table import mean_rows, to_csv, to_markdown
from tests.photographs import data_folder


class Sharp:
    """A method that knows the answer, by looking the blurred picture up."""

    name, knows, key = "sharp", Knows.NOTHING, ""

    def __init__(self, pairs):
        self.pairs = pairs

    def restore(self, blurred):
        wanted = (blurred[0, 0] * 255).round().numpy()
        (pair,) = [pair for pair in self.pairs if np.array_equal(pair.blurred, wanted)]
        return blurred.new_tensor(pair.sharp)[None, None] / 255 + 0.001


@pytest.fixture
def measured(photographs):
    pairs = [Protocol(crop=64).pair(photograph) for photograph in load_luma(find_photographs(photographs))]
    return pairs, evaluate([Identity(), Sharp(pairs)], pairs, "pythonq", None)


def test_each_method_is_measured_on_each_picture(measured):
    pairs, results = measured
    assert [(one.method, one.image) for one in results] == [
        (method, image) for method in ("blurred", "sharp") for image in ("a", "b", "c")
    ]
    for one, pair in zip(results, pairs, strict=False):
        assert one.psnr == psnr(pair.sharp, pair.blurred)
        assert one.q == sharpness_q(pair.blurred, "pythonq")
        assert one.seconds == 0
    for one in results[3:]:
        assert (one.psnr, one.ssim, one.lpips) == (float("inf"), 1.0, None)
        assert one.seconds > 0


def test_rows_are_means_and_tables_agree(measured):
    rows = mean_rows(measured[1])
    blurred = [one for one in measured[1] if one.method == "blurred"]
    assert rows[0].values["psnr"] == pytest.approx(sum(one.psnr for one in blurred) / 3)
    assert rows[0].values["lpips"] is None
    header, first, second = csv.reader(to_csv(rows).splitlines())
    assert header == ["method", "psnr", "ssim", "q", "lpips", "seconds"]
    assert float(first[1]) == pytest.approx(rows[0].values["psnr"], rel=1e-5)
    assert (first[4], second[1]) == ("", "inf")
    table = to_markdown(rows, {"blurred": "as it came"}).splitlines()
    assert len(table) == 4
    assert len({len(line) for line in table}) == 1
    assert "as it came" in table[2]
    assert "n/a" in table[2]
    assert "**inf**" in table[3]


def test_command_writes_table_and_csv(photographs, tiny_weights, tmp_path, capsys):
    run(EvaluateConfig(photographs=[photographs], weights=[tiny_weights], crop=64, out=tmp_path, lpips=False))
    output = capsys.readouterr().out
    assert "central 64 x 64 luma crops of 3 photographs" in output
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["blurred", "tiny"]
    with (tmp_path / "per_image.csv").open(newline="") as file:
        assert [(row["method"], row["image"]) for row in csv.DictReader(file)][2:4] == [
            ("blurred", "c"),
            ("tiny", "a"),
        ]
    assert "\n| blurred" in output
    assert "\n| tiny" in (tmp_path / "table.md").read_text()
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"cache", "table.md", "results.csv", "per_image.csv", "results.json", "table.tex"}


def test_command_takes_photographed_pairs(photographs, tmp_path, capsys):
    run(EvaluateConfig(photographs=[photographs], blurred=photographs, crop=64, out=tmp_path, lpips=False))
    assert "blurred as photographed" in capsys.readouterr().out
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [row["psnr"] for row in csv.DictReader(file)] == ["inf"]


def test_without_lpips_weights_the_rest_goes_on(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    run(EvaluateConfig(photographs=[photographs], crop=64, out=tmp_path))
    output = capsys.readouterr().out
    assert "no LPIPS column: LPIPS needs AlexNet's weights" in output
    assert "n/a" in output


def test_kodak_blurred_row_is_the_measured_one(tmp_path):
    """25.50 dB for the 24 central crops; SSIM 0.667 with the Gaussian window, 0.685 with a flat 7 x 7."""
    kodak = data_folder("kodak")
    run(EvaluateConfig(photographs=[kodak], out=tmp_path, lpips=False))
    with (tmp_path / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["psnr"]) == pytest.approx(25.50, abs=0.01)
    assert float(row["ssim"]) == pytest.approx(0.6673, abs=0.0001)


@pytest.mark.parametrize(("degraded", "sharp"), PAIR_FOLDERS)
def test_pairs_are_found_where_the_trainer_finds_them(photographs, tmp_path, degraded, sharp):
    """All of the folders' names, by both."""
    for place in (degraded, sharp):
        (tmp_path / place).mkdir()
        shutil.copy(photographs / "a.png", tmp_path / place)
    config = EvaluateConfig(photographs=[tmp_path], protocol="pairs")
    assert [pair.name for pair in read_pairs(config, config.settled())] == ["a"]
    assert load_images([tmp_path], 32).paired

"""The record of the classical methods."""

import argparse
import csv

import pytest

from bench import classical, record
from model.evaluation.evaluator import METRICS
from model.evaluation.formats import Table
from model.evaluation.table import Row
from tests.photographs import data_folder


def test_averages_are_of_the_sets_not_of_the_pictures():
    tables = [Table([]), Table([])]
    for table, psnr, pictures in zip(tables, (20.0, 30.0), (24, 500), strict=True):
        rows = [Row(("al",), dict.fromkeys(METRICS, psnr), pictures=pictures)]
        object.__setattr__(table, "rows", rows)
    (row,) = classical.averaged(tables)
    assert row.values["psnr"] == 25.0


def test_both_sets_under_both_protocols(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "SCRATCH", tmp_path)
    parser = argparse.ArgumentParser()
    classical.arguments(parser)
    data = data_folder("kodak").parent
    words = ["--data", str(data), "--limit", "2", "--methods", "mlm:iterations=20"]
    words += ["--slow-methods", "median"]
    assert classical.run(parser.parse_args(words)) == 0
    text = (tmp_path / "classical_cpu.md").read_text()
    average = text.partition("averaged, paper-circular")[2].partition("## kodak")[0]
    assert "mlm:iterations=20" in average and "median" not in average
    with (tmp_path / "classical_cpu.csv").open(newline="") as file:
        rows = {(row["data"], row["protocol"], row["method"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * (3 + 2)
    for data in classical.SETS:
        circular, mirrored = (
            float(rows[data, name, "mlm:iterations=20"]["psnr"]) - float(rows[data, name, "blurred"]["psnr"])
            for name in classical.PROTOCOLS
        )
        # What makes mLM so good is that its model of the blur is exact.
        assert circular > mirrored + 5
    assert rows["kodak", "paper-circular", "median"]["pictures"] == "2"
    assert ("bsds500", "paper-circular", "median") not in rows
    text = (tmp_path / "classical_cpu.md").read_text()
    assert "## kodak and bsds500 averaged, paper-circular" in text
    assert "- paper, Table II: mLM" in text
    assert text.count("| 95 % confidence ") == 4


def test_records_can_be_read_again(tmp_path):
    rows = [classical.Mean("kodak", "paper-kodak", "al", 24, 0, 32.5, None, None, 0.9, 0.1, None, 0.5)]
    record.write(tmp_path / "x.csv", rows, record.machine("cpu"))
    (read,), _ = record.read(tmp_path / "x.csv", classical.Mean)
    assert read == rows[0]
    assert read.psnr == pytest.approx(32.5)

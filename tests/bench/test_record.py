import csv
import dataclasses

import pytest

from bench import record
from bench.record import Machine, Others, Timing


@pytest.fixture(scope="module")
def machine() -> Machine:
    return record.machine("cpu")


def test_rows_come_back_as_they_were_written(machine, tmp_path):
    measured = Timing(
        "q",
        "cpp",
        "both",
        "float32",
        1,
        3,
        64,
        48,
        "photo",
        0.5,
        1.25,
        2.0,
        9,
        3.5,
        0.25,
        0,
        4096,
        0.125,
        0.5,
        "a, b",
    )
    empty = Timing("q", "compile", "both", "float32", 1, 3, 64, 48, "photo", note="failed")
    record.write(tmp_path / "new" / "rows.csv", [measured, empty], machine)
    rows, machine_again = record.read(tmp_path / "new" / "rows.csv", Timing)
    assert rows == [measured, empty]
    assert machine_again == machine
    assert rows[0].shape == (1, 3, 64, 48)


def test_every_row_says_where_it_was_measured(machine, tmp_path):
    record.write(
        tmp_path / "rows.csv", [Timing("q", "cpp", "both", "float32", 1, 1, 8, 8, "photo")] * 2, machine
    )
    with (tmp_path / "rows.csv").open() as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        assert {f.name for f in dataclasses.fields(Machine)} < set(line)
        assert line["torch"] == machine.torch
        assert line["commit"] == machine.commit != ""


def test_a_busy_machine_is_named(machine):
    assert "busy" not in record.describe(machine, others=0.01)
    assert "busy" not in record.describe(machine, others=None)
    assert "**The machine was busy**: other processes took 40%" in record.describe(machine, others=0.4)


def test_share_of_others_is_a_share():
    others = Others()
    sum(range(2_000_000))
    share = others.share()
    assert share is None or 0 <= share <= 1

"""The counts of `bench traffic`, for the calls whose counts are known beforehand."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

import pytest

from bench import record, traffic
from bench.traffic import Case, Traffic
from model.errors import UserError

ROOT = Path(__file__).parents[2]


def _rows(name: str, *cases: Case) -> dict[tuple[str, str], Traffic]:
    try:
        with traffic.ENGINES[name](ROOT / "build" / "tests" / "ptx") as engine:
            rows = [row for case in cases for row in traffic.measured(name, engine, case)]
    except UserError as error:
        pytest.skip(str(error))
    return {(row.case, row.mode): row for row in rows}


def test_the_cuda_kernels_load_and_store_whole_sectors():
    rows = _rows("cuda", Case(), Case("mae_q"), Case(channels=3), Case("mae_q", channels=3))
    assert len(rows) == 8
    # Through shared memory lanes side by side read what lies side by side.
    staged = _rows("cuda", Case(layout="shifted"), Case("mae_q", layout="shifted"))
    assert len(staged) == 4 and all(row.load_sectors < 1.25 for row in staged.values())
    assert all(row.reads == 1 for row in staged.values())
    for (_, mode), row in rows.items():
        assert row.reads == 1 and row.bank_cycles in (None, 1)
        # In 16 bytes out of every 32, for a lane holds whole rows of a patch, and the rest in the next load.
        assert row.load_sectors == pytest.approx(2, rel=0.05)
        if mode == "backward":
            assert row.writes == row.store_sectors == 1


def test_the_kernels_for_few_patches_store_by_halves_of_sectors():
    rows = _rows("cuda", Case(layout=traffic.FEW), Case(layout="contiguous"))
    few, many = (rows[f"QLoss float32{layout}", "backward"] for layout in (f" {traffic.FEW}", ""))
    assert few.reads == few.writes == many.writes == 1
    assert (few.store_sectors, many.store_sectors) == (2, 1)
    assert few.shared_requests < 0.1 < many.shared_requests and few.instructions > 2 * many.instructions


def test_the_triton_kernels_read_once_and_write_whole_sectors_once():
    rows = _rows("triton", Case(), Case(dtype="bfloat16"), Case(layout="offset"))
    for (case, mode), row in rows.items():
        assert row.reads == pytest.approx(1, abs=0.1 if "offset" in case else 0)
        if mode == "backward":
            # With an offset a row of a patch begins anywhere in a sector.
            assert row.writes == 1
            assert row.store_sectors == pytest.approx(1, abs=0.4 if "offset" in case else 0)


def test_the_record_is_written_and_read(tmp_path, capsys, monkeypatch):
    row = Traffic("cuda", "QLoss float32", "forward", 80, "nvcc 13.0", 16.4, 1.0, 2.0, None, None, 0.05, 1.0)
    monkeypatch.setattr(traffic, "CASES", (Case(),))
    monkeypatch.setattr(traffic, "ENGINES", {"cuda": lambda folder: nullcontext((None, None))})
    monkeypatch.setattr(traffic, "measured", lambda *arguments: [row])
    parser = argparse.ArgumentParser()
    traffic.arguments(parser)
    assert traffic.run(parser.parse_args(["--out", str(tmp_path)])) == 0
    rows, _ = record.read(tmp_path / "traffic.csv", Traffic)
    assert rows == [row]
    text = (tmp_path / "traffic.md").read_text()
    assert "| QLoss float32 forward | 16.4 | 1.00 | 2.00 |  |  | 0.05 | 1.00 |" in text
    assert text in capsys.readouterr().out

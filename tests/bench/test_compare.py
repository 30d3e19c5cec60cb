"""`bench compare` makes the record of a comparison, and goes on where it was interrupted."""

import pytest

from bench import compare, record
from bench.__main__ import main
from tests.photographs import data_folder


@pytest.fixture
def words(tmp_path) -> list[str]:
    data = data_folder("kodak").parent
    training = [str(data / "kodak" / f"kodim{number:02}.png") for number in (10, 11)]
    return [
        *("compare", "--data", str(data), "--train", *training, "--networks", "unet", "--limit", "2"),
        *("--minutes", "0.02", "--finetune-minutes", "0.02", "--batch", "1", "--crop", "32"),
        *("--device", "cpu", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")),
    ]


def test_a_run_writes_its_record(words, tmp_path, capsys):
    assert main(words) == 0
    rows, machine = record.read(tmp_path / "out" / "compare_cpu.csv", compare.Row)
    assert machine.device == "cpu"
    assert [(row.network, row.loss) for row in rows] == [
        ("blurred", ""),
        ("unet", "first stage"),
        ("unet", "l1"),
        ("unet", "l1+0.01*q"),
    ]
    _, first, mae, with_q = rows
    assert first.steps > 0 and mae.steps == with_q.steps > 0
    assert mae.earlier_steps == first.steps
    assert first.parameters == 4_891_216
    text = (tmp_path / "out" / "compare_cpu.md").read_text()
    assert "What it cannot say is which network is best" in text
    assert "first stage 0.02 min, second stage 0.02 min" in text
    assert "Hardly begun to learn after so few steps: unet" in text
    assert "| unet " in text and f"{machine.cores} cores" in text
    capsys.readouterr()
    # The same words again find everything finished; others are refused.
    assert main(words) == 0
    assert capsys.readouterr().out.count("finished before") == 3
    assert main([*words, "--batch", "2"]) == 2
    assert "holds a comparison with --batch 1, not 2" in capsys.readouterr().err


def test_missing_data_are_named(monkeypatch, capsys):
    monkeypatch.delenv("QKERNEL_DATA", raising=False)
    assert main(["compare"]) == 2
    assert "Name the folder with kodak and train" in capsys.readouterr().err

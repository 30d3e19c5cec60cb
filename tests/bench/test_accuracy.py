import dataclasses

import numpy as np
import torch

from bench import accuracy, record
from bench.__main__ import main
from tests.oracle import oracle
from tests.patches import image


def test_a_run_writes_its_records_and_passes(tmp_path):
    words = [
        "accuracy",
        "--engines",
        "eager",
        "--families",
        "camera",
        "horizontal_ramp",
        "--dtypes",
        "float32",
        "--patch-sizes",
        "8",
    ]
    assert main([*words, "--out", str(tmp_path)]) == 0
    rows, _ = record.read(tmp_path / "accuracy_cpu.csv", accuracy.Error)
    assert len(rows) == 6
    assert all(row.passes for row in rows)
    assert "0 outside the bounds" in (tmp_path / "accuracy_cpu.md").read_text()


def test_a_broken_bound_is_a_nonzero_exit_code(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "q_metric", lambda x, *_, **__: x.square().mean((1, 2, 3)))
    words = [
        "accuracy",
        "--engines",
        "eager",
        "--families",
        "camera",
        "--dtypes",
        "float32",
        "--patch-sizes",
        "8",
    ]
    assert main([*words, "--out", str(tmp_path)]) == 1


def test_nan_does_not_pass():
    row = accuracy.Error("zhu2010", "cpp", "float32", "camera", 8, 1, 0, 0.0, 0.0, 0.0, 0.0)
    assert row.passes
    assert not dataclasses.replace(row, value_of_bound=float("nan")).passes
    assert not dataclasses.replace(row, gradient_of_bound=float("nan")).passes


def test_a_wrong_gradient_is_measured_as_wrong_as_it_is():
    x = image("camera", 64, 64, 8)[None]
    expected = oracle(x)
    exact = expected.gradient
    assert accuracy._gradient_error(exact, 1.0, expected, torch.float32) == (0.0, 0.0)
    worst = np.unravel_index(np.abs(exact).argmax(), exact.shape)
    wrong = exact.copy()
    wrong[worst] *= 1.01
    error, share = accuracy._gradient_error(wrong, 1.0, expected, torch.float32)
    assert abs(error - 0.01) < 1e-9
    assert 50 < share < 101


def test_values_are_compared_relatively():
    expected = oracle(image("camera", 64, 64, 8)[None])
    assert accuracy._value_error(expected.value, expected) < 1e-12
    assert abs(accuracy._value_error(expected.value * 1.001, expected) - 1e-3) < 1e-4
    assert np.isnan(accuracy._value_error(expected.value * np.nan, expected))

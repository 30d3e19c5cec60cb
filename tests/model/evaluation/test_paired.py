"""Differences picture by picture, and what leaves the range of the sharp picture."""

import numpy as np
import pytest

from model.evaluation.evaluator import Measurement
from model.evaluation.paired import Difference, against
from model.evaluation.ringing import overshoot

NOTHING = np.zeros((1, 1), dtype=np.uint8)


def measured(method: str, image: str, psnr: float, lpips: float | None = None) -> Measurement:
    return Measurement(method, image, psnr, 0.5, 0.1, lpips, None, NOTHING)


def test_only_pictures_that_both_restored_count():
    rows = [
        *(measured("control", name, value) for name, value in (("a", 20.0), ("b", 40.0), ("c", 99.0))),
        *(measured("other", name, value) for name, value in (("b", 41.0), ("a", 20.5), ("d", 1.0))),
    ]
    found = against(rows, "control", "other", ["psnr", "lpips"])
    assert found["psnr"].mean == pytest.approx(0.75)
    assert found["psnr"].interval == pytest.approx((0.5, 1.0))
    # Not measured: not compared.
    assert "lpips" not in found


def test_infinite_psnr_is_not_compared():
    rows = [measured("control", "a", float("inf")), measured("other", "a", 30.0)]
    assert against(rows, "control", "other", ["psnr"]) == {}


def test_a_difference_is_certain_where_its_interval_leaves_out_zero():
    assert Difference(1.0, (0.1, 2.0)).certain and Difference(-1.0, (-2.0, -0.1)).certain
    assert not Difference(1.0, (-0.1, 2.0)).certain
    assert not Difference(1.0, None).certain
    assert Difference(0.5, (0.25, 0.75)).shown("psnr") == "+0.50 (+0.25 ... +0.75)"
    assert Difference(-0.5, None).shown("ssim") == "-0.5000"


def test_overshoot_is_the_halo_and_nothing_else():
    step = np.full((16, 16), 100, dtype=np.uint8)
    step[:, 8:] = 150
    assert overshoot(step, step) == 0
    # Anything between the two sides of an edge is blur, no ringing.
    soft = step.copy()
    soft[:, 6:10] = [110, 120, 130, 140]
    assert overshoot(step, soft) == 0
    halo = step.copy()
    halo[:, 8], halo[:, 7] = 158, 96
    assert overshoot(step, halo) == pytest.approx((8 + 4) / 16)
    # Black and white do not wrap around.
    black, white = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)
    assert overshoot(black, white) == overshoot(white, black) == 255

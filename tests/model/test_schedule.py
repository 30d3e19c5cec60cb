"""The learning rate over a run."""

from itertools import pairwise

import pytest

from model.training.schedule import warmup_cosine


def test_rises_to_one_and_falls_to_nothing():
    factors = [warmup_cosine(step, steps=100, warmup=10) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == factors[9] == factors[10] == 1
    assert all(before > after for before, after in pairwise(factors[10:]))
    assert 0 < factors[-1] < 0.002


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 100), (5, 100), (5, 5)])
def test_short_runs_are_never_without_a_rate(steps, warmup):
    assert all(0 < warmup_cosine(step, steps, warmup) <= 1 for step in range(steps))

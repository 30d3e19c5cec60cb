"""The learning rate over a run."""

from itertools import pairwise

import pytest

from model.training.schedule import learning_rate

KINDS = ("cosine", "linear", "exponential", "constant")


def test_cosine_rises_to_one_and_falls_to_nothing():
    factors = [learning_rate(step, steps=100, warmup=10) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == factors[9] == factors[10] == 1
    assert all(before > after for before, after in pairwise(factors[10:]))
    assert 0 < factors[-1] < 0.002


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 100), (5, 100), (5, 5)])
def test_short_runs_are_never_without_a_rate(steps, warmup, kind):
    assert all(0 < learning_rate(step, steps, warmup, 0.0, 0.01, kind) <= 1 for step in range(steps))


@pytest.mark.parametrize("kind", ["cosine", "linear", "exponential"])
def test_plateau_then_fall_towards_the_end(kind):
    factors = [learning_rate(step, 1000, 10, hold=0.4, end=0.05, kind=kind) for step in range(1000)]
    assert factors[9:400] == [1.0] * 391
    assert all(before > after for before, after in pairwise(factors[399:]))
    # One step after the last it would be there.
    assert factors[-1] == pytest.approx(0.05, rel=0.05)
    assert factors[-1] > 0.05


def test_exponential_falls_by_the_same_factor_every_step():
    factors = [learning_rate(step, 50, 0, end=0.1, kind="exponential") for step in range(50)]
    assert [b / a for a, b in pairwise(factors)] == pytest.approx([0.1 ** (1 / 51)] * 49)


def test_constant_stays_and_unknown_kinds_are_named():
    assert {learning_rate(step, 20, 5, kind="constant") for step in range(5, 20)} == {1.0}
    with pytest.raises(ValueError, match="'cosin'"):
        learning_rate(10, 20, kind="cosin")

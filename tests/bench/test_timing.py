from collections import Counter
from itertools import pairwise

import pytest

from bench.timing import Sample, interleave, order, repeated


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 12])
def test_order_is_balanced(count):
    """Each candidate comes equally often in each place, and right after each other one."""
    rounds = count if count % 2 == 0 else 2 * count
    orders = [order(count, round_) for round_ in range(rounds)]
    assert all(sorted(o) == list(range(count)) for o in orders)
    places = Counter((place, candidate) for o in orders for place, candidate in enumerate(o))
    assert set(places.values()) == {rounds // count}
    followers = Counter(pair for o in orders for pair in pairwise(o))
    assert len(followers) == count * (count - 1)
    assert len(set(followers.values())) <= 1


def test_runs_are_interleaved():
    calls = []
    steps = [lambda name=name: calls.append(name) for name in "abc"]
    samples = interleave(steps, budget=0, least=4, most=4, patience=float("inf"))
    assert [len(s.seconds) for s in samples] == [4, 4, 4]
    # One round to warm up and four that count: everyone once in each.
    assert len(calls) == 15
    assert all(sorted(calls[i : i + 3]) == ["a", "b", "c"] for i in range(0, 15, 3))
    assert len({tuple(calls[i : i + 3]) for i in range(3, 15, 3)}) > 1


def test_each_sample_is_of_its_own_step():
    ticks = {"quick": 1.0, "slow": 10.0}
    samples = interleave(list(ticks), 0, clock=lambda step: ticks[step], least=5, most=5)
    assert [s.ms(50) for s in samples] == [1e3, 10e3]


def test_a_slow_step_ends_the_rounds_before_the_least():
    samples = interleave([lambda: None], budget=0, least=100, most=200, patience=0)
    assert len(samples[0].seconds) == 3


def test_percentiles_are_in_milliseconds():
    sample = Sample(tuple(i / 1000 for i in range(1, 102)))
    assert [sample.ms(p) for p in (20, 50, 80)] == pytest.approx([21, 51, 81])


def test_repeated_calls_as_often_as_asked():
    calls = []
    repeated(lambda: calls.append(1), 7)()
    assert len(calls) == 7

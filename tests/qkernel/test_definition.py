"""The definitions are the published ones, and nonsense is refused in words."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkernel import FORMULAS, Definition

from ..oracle import DEFINITIONS, threshold


@pytest.mark.parametrize(
    "name, n, published",
    [
        ("zhu2010", 4, 0.47568),
        ("zhu2010", 8, 0.23403),
        ("zhu2010", 16, 0.11638),
        ("pythonq", 8, 0.23403),
        ("mmsp2024", 8, 0.22787),
    ],
)
def test_thresholds_are_the_published_ones(name, n, published):
    assert round(Definition(name, n).threshold, 5) == published


@given(
    st.sampled_from(DEFINITIONS),
    st.integers(3, 64),
    st.floats(1e-12, 1, exclude_max=True),
)
def test_threshold_follows_patch_size_and_delta(name, n, delta):
    # Cancellation in 1 - t leaves few digits where t is nearly 1, in either formula's arithmetic.
    assert math.isclose(
        Definition(name, n, delta).threshold, threshold(name, n, delta), rel_tol=1e-12, abs_tol=1e-9
    )


def test_there_are_exactly_the_three_published_definitions():
    assert tuple(FORMULAS) == DEFINITIONS
    assert Definition().name == "zhu2010"
    assert {name: f.gradient for name, f in FORMULAS.items()} == {
        "zhu2010": "central",
        "mmsp2024": "sobel",
        "pythonq": "central",
    }


def test_defaults_are_the_published_parameters():
    assert dataclasses.astuple(Definition()) == ("zhu2010", 8, 1e-3, 1.0, 0.0)


def test_smoothing_grows_with_the_patch():
    assert Definition(eps=0.01, patch_size=8).smoothing == pytest.approx(0.08**2)
    assert Definition().smoothing == 0


def test_definition_is_a_frozen_value():
    definition = Definition("mmsp2024", 16)
    assert pickle.loads(pickle.dumps(definition)) == definition
    assert len({definition, Definition("mmsp2024", 16)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        definition.patch_size = 4


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"name": "zhu"}, ValueError, ("'zhu'", *DEFINITIONS)),
        ({"patch_size": 2}, ValueError, ("patch_size", "at least 3", "2")),
        ({"patch_size": -8}, ValueError, ("patch_size", "at least 3", "-8")),
        ({"patch_size": 8.0}, TypeError, ("patch_size", "int", "8.0")),
        ({"patch_size": True}, TypeError, ("patch_size", "int", "True")),
        ({"delta": 0.0}, ValueError, ("delta", "between 0 and 1", "0.0")),
        ({"delta": 1.0}, ValueError, ("delta", "between 0 and 1", "1.0")),
        ({"delta": -1e-3}, ValueError, ("delta", "-0.001")),
        ({"delta": math.nan}, ValueError, ("delta", "nan")),
        ({"delta": "small"}, TypeError, ("delta", "'small'")),
        ({"data_range": 0}, ValueError, ("data_range", "positive", "0")),
        ({"data_range": -1.0}, ValueError, ("data_range", "-1.0")),
        ({"data_range": math.inf}, ValueError, ("data_range", "inf")),
        ({"data_range": math.nan}, ValueError, ("data_range", "nan")),
        ({"data_range": None}, TypeError, ("data_range", "None")),
        ({"eps": -0.1}, ValueError, ("eps", "non-negative", "-0.1")),
        ({"eps": math.inf}, ValueError, ("eps", "inf")),
        ({"eps": math.nan}, ValueError, ("eps", "nan")),
        ({"eps": True}, TypeError, ("eps", "True")),
    ],
)
def test_nonsense_is_refused_naming_the_value_and_the_way_out(arguments, error, words):
    with pytest.raises(error) as raised:
        Definition(**arguments)
    for word in words:
        assert word in str(raised.value)

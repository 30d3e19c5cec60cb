"""The Triton kernels compile for every GPU generation, without spills and within the limits, shown without a
GPU.

`python -m bench inspect --all` does the same for every variant.
"""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is an optional dependency, for Linux")

from bench import inspect


@pytest.mark.parametrize(
    ("variant", "architecture"),
    list(inspect.few()),
    ids=lambda value: value.name.replace(" ", "-") if isinstance(value, inspect.Variant) else f"sm_{value}",
)
def test_kernel_keeps_the_limits(variant, architecture):
    report = inspect.compiled(variant, architecture)
    assert not inspect.violations(report), inspect.line(report)

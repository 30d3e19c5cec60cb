"""What every test of the library starts from."""

from __future__ import annotations

import pytest
import torch

from qkernel.engines import cpp

SIMD_LEVELS = cpp._C.simd_levels if cpp.missing() is None else ["the C++ engine is not built"]


@pytest.fixture(autouse=True)
def torch_state():
    """A fixed seed; fresh memory is full of NaN, so that a result left unwritten shows; threads put back."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    # Deterministic mode is what makes torch fill new tensors; here nothing needs it otherwise.
    torch.use_deterministic_algorithms(True, warn_only=True)
    filled, torch.utils.deterministic.fill_uninitialized_memory = (
        torch.utils.deterministic.fill_uninitialized_memory,
        True,
    )
    yield
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(params=SIMD_LEVELS)
def simd(request, monkeypatch):
    """Each instruction set in turn that the C++ engine was built for and this processor has."""
    if reason := cpp.missing():
        pytest.fail(reason)
    if SIMD_LEVELS.index(request.param) > cpp._C.best_simd:
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("QKERNEL_SIMD", request.param)
    for cached in (cpp.simd, cpp._simd_number):
        cached.cache_clear()
    yield request.param
    for cached in (cpp.simd, cpp._simd_number):
        cached.cache_clear()

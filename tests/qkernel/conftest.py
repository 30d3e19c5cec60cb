"""What every test of the library starts from."""

from __future__ import annotations

import pytest
import torch


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

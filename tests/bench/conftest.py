"""What every test of the benchmarks starts from."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On tiny images a second thread is of no use, and waiting for it is slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

import torch

from bench import memory

MIB = 1 << 20


def test_peak_counts_what_is_held_at_the_worst_moment():
    def call():
        first = torch.ones(2 * MIB, dtype=torch.uint8)
        del first
        second = torch.ones(8 * MIB, dtype=torch.uint8)
        third = torch.ones(4 * MIB, dtype=torch.uint8)
        del second
        return third

    assert memory.allocated_peak(call) == 12 * MIB


def test_nothing_allocated_is_nothing():
    x = torch.ones(4 * MIB)
    # A few bytes are the 1, which becomes a tensor.
    assert memory.peak_extra(lambda: x.add_(1), "cpu") < 64


def test_memory_taken_behind_torchs_back_is_seen():
    assert memory.peak_extra(lambda: bytearray(64 * MIB), "cpu") >= 60 * MIB


def test_functions_are_called_no_more_than_promised():
    calls = []
    memory.peak_extra(lambda: calls.append(1), "cpu")
    assert len(calls) <= memory.CALLS

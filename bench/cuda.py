"""What timing on a GPU needs besides: inputs too many for its cache, and captured graphs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

#: The inputs of one timed run together are this many times the L2 cache.
CACHES = 3


def sets_needed(image_bytes: int) -> int:
    """How many sets of inputs rotate, so that none is still in the cache when its turn comes."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(1, -(-CACHES * cache // image_bytes))


@functools.cache
def side() -> torch.cuda.Stream:
    """Steps are made and captured on it: a backward pass runs on the stream of its forward."""
    return torch.cuda.Stream()


@contextmanager
def on_side() -> Iterator[None]:
    """What is in here runs on the side stream, between what comes before and after."""
    side().wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side()):
        yield
    torch.cuda.current_stream().wait_stream(side())


def captured(steps: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """One call after the other as a CUDA graph: replaying it has no gaps in which Python works.

    Graphs of autograd that the steps hold must have been made `on_side`.

    Raises:
        RuntimeError: from torch, for a step that cannot be captured (it synchronises, say).
    """
    with on_side():
        for step in steps:
            step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side()):
        results = [step() for step in steps]

    # Kept as long as the graph: the results, so that each is written into memory of its own, which no other
    # has left in the cache; and the steps, whose losses hold what their backward passes read.
    def replay(_kept: object = (results, list(steps))) -> None:
        graph.replay()

    return replay


@functools.cache
def _other_memory() -> torch.Tensor:
    return torch.zeros(
        CACHES * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.uint8, device="cuda"
    )


def clean_cache() -> None:
    """Fills the L2 cache with other memory, by reading it.

    What the last kernel wrote is then no longer there, to be written to memory at the cost of the next one.
    """
    _other_memory().view(torch.int64).max()

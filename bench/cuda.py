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
        # Kept, so that each writes into memory of its own, which no other has left in the cache.
        results = [step() for step in steps]

    def replay(results: list[object] = results) -> None:
        graph.replay()

    return replay

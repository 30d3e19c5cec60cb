"""What timing on a GPU needs besides: inputs too many for its cache, and captured graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

#: The inputs of one timed run together are this many times the L2 cache.
CACHES = 3


def sets_needed(image_bytes: int) -> int:
    """How many sets of inputs rotate, so that none is still in the cache when its turn comes."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(1, -(-CACHES * cache // image_bytes))


def captured(steps: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """One call after the other as a CUDA graph: replaying it has no gaps in which Python works.

    Raises:
        RuntimeError: from torch, for a step that cannot be captured (it synchronises, say).
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for step in steps:
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for step in steps:
            step()
    return graph.replay

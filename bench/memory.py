"""Peak extra memory of a call: what it allocates at its worst moment beyond what was there before."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from .providers import Inputs, Provider

#: The kernel counts resident pages per processor and sums up late: smaller differences say nothing.
RESIDENT_SLACK = 2 << 20

#: How often `peak_extra` calls its function, at most.
CALLS = 2


def peak_extra(function: Callable[[], object], device: str, behind_torch: bool = True) -> int:
    """Bytes that ``function`` needs at its peak, its results included. It is called `CALLS` times at most.

    On CUDA, by torch's allocator. On the CPU, by the allocations and releases that torch's allocator reports
    to the profiler, in the order of time. With ``behind_torch`` a second call watches the resident memory of
    the process: where that shows clearly more, an extension has allocated by itself, and that counts.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    allocated = allocated_peak(function)
    resident = resident_peak(function) if behind_torch else None
    return resident if resident is not None and resident > 1.1 * allocated + RESIDENT_SLACK else allocated


def of_step(provider: Provider, inputs: Inputs, mode: str, device: str) -> dict[str, int]:
    """Peak extra bytes, by column: of a forward without a graph, or of the two halves of a step."""
    if provider.kernel == "copy" or mode == "backward":
        return {}
    forward = provider.step(inputs, mode) if mode == "forward" else lambda: provider(inputs)
    found = {"extra_bytes_forward": peak_extra(forward, device, provider.compiled)}
    if mode == "both":
        # A graph is good for one backward pass, and `peak_extra` may make several.
        graphs = [provider(inputs) for _ in range(CALLS if provider.compiled else 1)]
        found["extra_bytes_backward"] = peak_extra(
            lambda: torch.autograd.grad(graphs.pop(), inputs.pred), device, provider.compiled
        )
    return found


def allocated_peak(function: Callable[[], object]) -> int:
    """Peak of the bytes that torch's CPU allocator hands out during ``function``."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        result = function()
    del result
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak


def resident_peak(function: Callable[[], object]) -> int | None:
    """Growth of the process's resident memory at its peak in ``function``; None where it cannot be had."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        # What malloc keeps for reuse would hide allocations.
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        reset.write_text("5")
        before = _kib(status, "VmRSS")
        result = function()
        peak = _kib(status, "VmHWM")
        del result
    except (OSError, AttributeError):
        return None
    return max(peak - before, 0) * 1024


def _kib(status: Path, name: str) -> int:
    return int(status.read_text().split(f"{name}:", 1)[1].split(None, 1)[0])

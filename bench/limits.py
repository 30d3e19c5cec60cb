"""What bounds a kernel on a GPU: the bytes it must move and the instructions it must be issued.

The limit is the slower of the two: the least bytes at the bandwidth of a copy, or the instructions of the
kernel's machine code at the issue rate, both measured in the same rounds as the kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from qkernel.engines import cuda as cuda_engine

from . import cuda_inspect, inspect
from .record import Timing

#: The engines whose kernels are held to the limit.
OURS = ("cuda", "triton")

#: Kernels a mode runs, by whether they are of the backward pass.
PASSES = {"forward": (False,), "backward": (True,), "both": (False, True)}


@dataclass(frozen=True)
class Measured(Timing):
    """A row of the GPU benchmark.

    ``layout`` says where rows and patches begin: "contiguous", "shifted" (off the 16 bytes of a vector
    load) or "offset" (patches at an offset). Instructions are those of one thread;
    ``ginstructions_per_s`` is 1e9 of them a second over all threads. The three shares are those of a copy's
    bandwidth, of the issue rate, and the larger of the two, which is how near the kernel is to the limit.
    ``workspace_bytes`` is the most that a call holds at a time beside the gradient, its result included.
    """

    layout: str = "contiguous"
    instructions_per_pixel: float | None = None
    ginstructions_per_s: float | None = None
    share_of_issue: float | None = None
    share_of_limit: float | None = None
    workspace_bytes: int | None = None

    @property
    def pixels(self) -> int:
        return self.n * self.c * self.h * self.w


def instructions_per_pixel(row: Measured, architecture: int) -> float | None:
    """Of the machine code that the engine runs on ``architecture`` (90 for 9.0); None where it has no count.

    Three channels have none: they are a loop, which the code does not show the turns of. Whatever a row's
    layout, it is the code for contiguous rows that counts: what another layout costs more is no excuse.
    """
    if row.provider not in OURS or row.c != 1:
        return None

    def count(backward: bool) -> float | None:
        key = backward, row.kernel == "mae_q", row.dtype, architecture
        return _of_triton(*key) if row.provider == "triton" else _of_cuda(*key, _few(row))

    try:
        counts = [count(backward) for backward in PASSES[row.mode]]
    except Exception as error:
        # No disassembler, or code that a new compiler lays out otherwise: no verdict, but there are times.
        print(f"no instructions of {row.provider} for sm_{architecture}: {error}", flush=True)
        return None
    return None if None in counts else sum(counts)


def _few(row: Measured) -> bool:
    """Whether a backward pass takes the CUDA engine's kernels for few patches; without a device, on an
    H100."""
    multiprocessors = 132
    if torch.cuda.is_available():
        device = torch.cuda.current_device()
        multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    patches = row.n * (row.h // 8) * (row.w // 8)
    return cuda_engine.is_built() and patches <= cuda_engine.few_patches(multiprocessors)


@functools.cache
def _of_triton(backward: bool, with_pixel: bool, dtype: str, architecture: int) -> float:
    kernel, pixel = "gradient" if backward else "value", "l1" if with_pixel else "none"
    variant = inspect.Variant(kernel, dtype=dtype, pixel=pixel, target=dtype)
    return inspect.compiled(variant, architecture).instructions


def _of_cuda(backward: bool, with_pixel: bool, dtype: str, architecture: int, few: bool) -> float | None:
    kind = "spread" if few and backward else "direct"
    return _cuda_kernels(architecture).get((kind, backward, with_pixel, dtype != "float32"))


@functools.cache
def _cuda_kernels(architecture: int) -> dict[tuple[str, bool, bool, bool], float]:
    """Instructions of the kernels of the default definition, by kind, backward, pixel term and half
    precision."""
    file, cuobjdump = cuda_inspect.built_module(), cuda_inspect.find_cuobjdump()
    built = machine_code(architecture, cuda_engine.architectures()) if file else None
    if built is None or cuobjdump is None:
        return {}
    return {
        (kernel.kind, *kernel.key[2:], kernel.half): kernel.instructions
        for kernel in cuda_inspect.inspect(file, cuobjdump, built)
        if kernel.key and kernel.key[:2] == ("central", 1)
    }


def machine_code(architecture: int, built: Sequence[str]) -> int | None:
    """Which of the architectures built for a device runs: the newest of its major version that it knows.

    None where it is PTX that the driver compiles, which cannot be read.
    """
    numbers = [int(name) for name in built if not name.endswith("-ptx")]
    return max((n for n in numbers if n // 10 == architecture // 10 and n <= architecture), default=None)


def with_shares(rows: Sequence[Measured]) -> list[Measured]:
    """The rows of one run with their shares of what its rows "copy" and "issue" reached."""
    copy = next((row.gbytes_per_s for row in rows if row.kernel == "copy"), None)
    issue = max((row.ginstructions_per_s for row in rows if row.kernel == "issue"), default=None)
    return [_with_shares(row, copy, issue) for row in rows]


def _with_shares(row: Measured, copy: float, issue: float | None) -> Measured:
    if row.gbytes_per_s is None or copy is None:
        return row
    row = replace(row, share_of_copy=row.gbytes_per_s / copy)
    if row.instructions_per_pixel is None or issue is None:
        return row
    rate = row.instructions_per_pixel * row.pixels / row.ms_p50 / 1e6
    of_issue = rate / issue
    return replace(
        row,
        ginstructions_per_s=rate,
        share_of_issue=of_issue,
        share_of_limit=max(row.share_of_copy, of_issue),
    )


def workspace(row: Measured, itemsize: int) -> int | None:
    """Of a row's extra bytes, those that are not the gradient's; ``itemsize`` is in bytes."""
    if row.extra_bytes_forward is None:
        return None
    backward = row.extra_bytes_backward or 0
    # The allocator hands out whole pieces of 512 bytes, so the gradient's own rounding counts as workspace.
    return max(row.extra_bytes_forward, backward - row.pixels * itemsize)

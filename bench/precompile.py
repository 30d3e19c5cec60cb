"""What the GPU benchmark would compile in one process, one kernel after the other, compiled side by side.

Triton and torch.compile keep what they have compiled in a cache on disk. A process of its own runs each kind
of call once; the benchmark then finds all of it there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from . import gpu_cells
from .content import DTYPES
from .gpu_cells import Cell
from .providers import Inputs, Provider

#: Bytes of GPU memory that a process takes beside its images.
PROCESS_BYTES = 1 << 30


@dataclass(frozen=True)
class Kind:
    """One call to be made once: a provider, by kernel and name, on a cell."""

    cell: Cell
    kernel: str
    name: str

    @property
    def bytes(self) -> int:
        n, c, h, w = self.cell.shape
        # pred, target, buffer, the gradient, and what plain torch keeps, of which a compiled graph has less.
        images = 12 if self.name == "compile" else 5
        return PROCESS_BYTES + images * n * c * h * w * DTYPES[self.cell.dtype].itemsize


def kinds(cells: Sequence[Cell], most_bytes: int) -> list[Kind]:
    """The cells' calls that are compiled while they run and fit the memory; what takes long comes first."""
    found = dict.fromkeys(
        Kind(Cell(cell.shape, "both", cell.dtype, cell.layout, name == "compile"), kernel, name)
        for cell in cells
        for kernel, name in [("q", "triton"), ("mae_q", "triton"), *[("q", "compile")] * cell.compiled]
    )
    fitting = [kind for kind in found if kind.bytes <= most_bytes]
    return sorted(fitting, key=lambda kind: (kind.name != "compile", kind.cell.layout == "contiguous"))


def run(cells: Sequence[Cell], end: float) -> None:
    """Compile for cells until ``end`` (of `time.perf_counter`); what fails is told, and ends nothing."""
    begin = time.perf_counter()
    free = torch.cuda.mem_get_info()[0]
    work = kinds(cells, free // 2)
    if not work:
        return
    processes = min(len(work), os.cpu_count() or 1, max(1, free // max(kind.bytes for kind in work)))
    failed = 0
    # Whoever still works at the end is ended with the pool.
    with get_context("spawn").Pool(processes) as pool:
        calls = [pool.apply_async(call, (kind, gpu_cells.DEVICE)) for kind in work]
        for kind, result in zip(work, calls, strict=True):
            try:
                result.get(max(end - time.perf_counter(), 0))
            except Exception as error:
                failed += 1
                said = str(error).partition("\n")[0] or "no time left"
                print(
                    f"not compiled ahead: {kind.kernel}/{kind.name} of {kind.cell.name}: {said}", flush=True
                )
    done = f"{len(work) - failed} of {len(work)} kinds of calls"
    print(f"{done} compiled ahead, {time.perf_counter() - begin:.0f} s", flush=True)


def call(kind: Kind, device: str) -> None:
    """Make one call, forward and backward, on noise."""
    generator = torch.Generator(device).manual_seed(0)
    images = (torch.rand(kind.cell.shape, device=device, generator=generator) for _ in range(2))
    inputs = Inputs.of(*images, DTYPES[kind.cell.dtype], device)
    if kind.cell.layout == "shifted":
        inputs = gpu_cells._shifted(inputs)
    provider = _provider(kind, device)
    provider.step(inputs, "both", ready=True)()
    # A metric's call is compiled apart.
    provider.step(inputs, "forward")()


def _provider(kind: Kind, device: str) -> Provider:
    names = [] if kind.name == "compile" else [kind.name]
    found = gpu_cells.of_cell(kind.cell, names, device)
    return next(p for p in found if (p.kernel, p.name) == (kind.kernel, kind.name))

"""What the GPU benchmark would compile in one process, one kernel after the other, compiled side by side.

Triton and torch.compile keep what they have compiled in a cache on disk. A process of its own makes each call
once; the benchmark then finds all of it there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
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
        """Of the GPU's memory, at most."""
        n, c, h, w = self.cell.shape
        # pred, target, buffer, the gradient and, shifted, the first two again; plain torch keeps more, of
        # which a compiled graph has less. What they are made from is float32.
        images = 12 if self.name == "compile" else 8
        return PROCESS_BYTES + n * c * h * w * (images * DTYPES[self.cell.dtype].itemsize + 8)

    def serves(self, cell: Cell) -> bool:
        same = (cell.shape, cell.dtype, cell.layout) == (self.cell.shape, self.cell.dtype, self.cell.layout)
        return same and (self.name != "compile" or cell.compiled)


def kinds(cells: Sequence[Cell], most_bytes: int) -> list[Kind]:
    """The cells' calls that are compiled while they run and fit the memory; what takes long comes first."""
    found = dict.fromkeys(
        Kind(Cell(cell.shape, "both", cell.dtype, cell.layout, name == "compile"), kernel, name)
        for cell in cells
        for kernel, name in [("q", "triton"), ("mae_q", "triton"), *[("q", "compile")] * cell.compiled]
    )
    fitting = [kind for kind in found if kind.bytes <= most_bytes]
    return sorted(fitting, key=lambda kind: (kind.name != "compile", kind.cell.layout == "contiguous"))


def run(cells: Sequence[Cell], end: float) -> list[Cell]:
    """Compile for cells until ``end`` (of `time.perf_counter`).

    Returns:
        The cells for which that was not done, or not all of it. Why, is printed, or was by the process.
    """
    begin = time.perf_counter()
    free = torch.cuda.mem_get_info()[0]
    work = kinds(cells, free // 2)
    largest = max((kind.bytes for kind in work), default=1)
    done = list(_made(work, min(os.cpu_count() or 1, max(1, free // largest)), end))
    print(f"{len(done)} of {len(work)} calls compiled ahead, {time.perf_counter() - begin:.0f} s", flush=True)
    late = set(kinds(cells, 1 << 62)) - set(done)
    return [cell for cell in cells if any(kind.serves(cell) for kind in late)]


def _made(work: Sequence[Kind], processes: int, end: float) -> Iterator[Kind]:
    """Those that were made in time, so many side by side."""
    context, waiting, running = get_context("spawn"), list(work), {}
    while waiting or running:
        if time.perf_counter() > end:
            for process in running.values():
                process.kill()
            waiting.clear()
        while waiting and len(running) < processes:
            kind = waiting.pop(0)
            running[kind] = context.Process(target=call, args=(kind, gpu_cells.DEVICE))
            running[kind].start()
        for kind, process in list(running.items()):
            process.join(0.02)
            if process.exitcode is None:
                continue
            del running[kind]
            if process.exitcode == 0:
                yield kind
            else:
                name = f"{kind.kernel}/{kind.name} of {kind.cell.name}"
                print(f"not compiled ahead: {name}: the process ended with {process.exitcode}", flush=True)


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

"""`python -m bench inspect --all`: all kinds of Triton kernels, and their record."""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import inspect, record, tables
from .inspect import DTYPES, Report, Variant


def every() -> Iterator[Variant]:
    """One definition in all the combinations in which one feature is likely to change what another takes; the
    others, which differ in their arithmetic alone, in a few."""
    for kernel in ("value", "gradient"):
        for n in (4, 8, 16):
            one = functools.partial(Variant, kernel, "zhu2010", n)
            for dtype in DTYPES:
                yield one(dtype)
            for channels in (1, 3):
                for pixel in ("l1", "mse", "charbonnier"):
                    yield one("float32", channels, pixel)
                    yield one("float32", channels, pixel, general=True)
                yield one("bfloat16", channels, "l1")
                yield one("bfloat16", channels, "l1", general=True)
                yield one("bfloat16", channels, "l1", general=True, offset=True)
                yield one("float32", channels, general=True)
                yield one("float32", channels, general=True, offset=True)
                yield one("float32", channels, "l1", "bfloat16")
                yield one("bfloat16", channels, "l1", "bfloat16")
            yield one("float16", pixel="mse")
            yield one(channels=3)
            yield one(width=1000)
            yield one(eps=1e-3)
            for definition in ("mmsp2024", "pythonq"):
                yield Variant(kernel, definition, n)
                yield Variant(kernel, definition, n, pixel="l1")
                yield Variant(kernel, definition, n, "bfloat16", pixel="l1")
                yield Variant(kernel, definition, n, general=True, offset=True)
    for pixel in ("none", "l1"):
        for offset in (False, True):
            yield Variant("finish", pixel=pixel, offset=offset)


@dataclass(frozen=True)
class Row:
    """A `Report` in columns, and the limits it breaks."""

    variant: str
    architecture: int
    warps: int
    registers: int
    occupancy: int
    stack: int
    spilled: int
    shared: int
    conversions: int
    vector_loads: int
    loads: int
    vector_stores: int
    stores: int
    instructions: float
    seconds: float
    broken: str

    @classmethod
    def of(cls, report: Report) -> Row:
        return cls(
            report.variant.name,
            report.architecture,
            report.warps,
            report.registers,
            report.occupancy,
            report.stack,
            report.spilled,
            report.shared,
            report.conversions,
            report.vector_loads,
            report.loads,
            report.vector_stores,
            report.stores,
            round(report.instructions, 1),
            round(report.seconds, 2),
            "; ".join(inspect.violations(report)),
        )


def run(options: argparse.Namespace) -> int:
    """Compile, print, record; 1 if a limit is broken."""
    import triton

    complete = tuple(options.arch) == inspect.ARCHITECTURES
    folder = options.out or (record.RESULTS if complete else record.SCRATCH)
    where = record.machine("cpu")
    work = [(variant, architecture) for architecture in options.arch for variant in every()]
    print(inspect.HEAD)
    rows, broken = [], 0
    # Not forked: Triton's compiler has threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs or os.cpu_count(), context, _afresh) as pool:
        for report in pool.map(inspect.compiled, *zip(*work, strict=True)):
            broken += inspect.show(report)
            rows.append(Row.of(report))
    record.write(folder / "inspect_triton.csv", rows, where)
    (folder / "inspect_triton.md").write_text(summary(rows, triton.__version__))
    print(f"Written: {folder}/inspect_triton.csv and .md")
    return inspect.verdict(broken)


def _afresh() -> None:
    # The record has the time that a compilation takes.
    from triton import knobs

    knobs.compilation.always_compile = True


def summary(rows: Sequence[Row], version: str) -> str:
    """A line for each architecture, and every limit that is broken."""
    lines = []
    for architecture in dict.fromkeys(row.architecture for row in rows):
        of = [row for row in rows if row.architecture == architecture]
        lines.append(
            (
                f"sm_{architecture}",
                str(len(of)),
                str(sum(row.spilled > 0 or row.stack > 0 for row in of)),
                str(max(row.registers for row in of)),
                str(min(row.occupancy for row in of)),
                str(max((row.shared for row in of if not row.variant.startswith("finish")), default=0)),
                str(sum(row.broken != "" for row in of)),
                f"{statistics.median(row.seconds for row in of):.1f}",
                f"{max(row.seconds for row in of):.1f}",
            )
        )
    head = ("", "kernels", "spill", "most registers", "fewest warps", "most shared bytes", "break a limit")
    head += ("median s", "longest s")
    text = _HOW.format(version=version) + "\n" + tables.table(head, lines)
    for row in rows:
        if row.broken:
            text += f"\n- sm_{row.architecture} {row.variant}: {row.broken}"
    return text.rstrip() + "\n"


_HOW = """\
# What the Triton kernels compile to

Variants of all kinds, compiled by triton {version} for GPUs that need not be there; registers, local and
shared memory and instructions are read from the machine code. Written by `python -m bench inspect --all`, a
kernel a line in [inspect_triton.csv](inspect_triton.csv); the limits are those of
[bench/inspect.py](../inspect.py).

- spill: kernels with a stack or an instruction on local memory.
- fewest warps: that the registers of a multiprocessor hold.
- most shared bytes: without the kernel that ends a forward pass; a sum over a block's warps takes some.
- s: seconds that a kernel takes to compile, beside others if `--jobs` says so.
"""


def arguments(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--all", action="store_true", help="instead of a few variants")
    parser.add_argument("--jobs", type=int, help="compile so many at a time (default: one for each core)")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the record (default: bench/results; with --arch runs/bench)",
    )

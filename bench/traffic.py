"""What the GPU kernels do with memory, counted while their PTX is executed on the CPU: no GPU, no times.

Counts are exact, for the PTX that one compiler makes for one architecture (see `bench.ptx`).
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import setup_cuda
from model.errors import UserError
from qkernel import Definition

from . import record, tables
from .content import DTYPES, pictures
from .ptx import machine
from .ptx.memory import SECTOR, Region

#: Pixels a side: many blocks, and every lane has a patch.
SIDE = 256

ARCHITECTURE = 80

#: First row and column of the patch grid with the layout "offset".
OFFSET = (3, 5)


#: The layout with which patches are few.
FEW = "few patches"

#: The Triton kernels' arguments that are written to.
OUTPUTS = ("partial", "value", "terms", "gradient")


@dataclass(frozen=True)
class Case:
    """A call. ``layout`` is "contiguous", "shifted" (off the 16 bytes of a vector load), "offset" (of the
    grid of patches), "channels last", or "few patches", for which the CUDA engine has kernels of their own:
    with the other layouts it takes those for many."""

    kernel: str = "q"
    dtype: str = "float32"
    channels: int = 1
    layout: str = "contiguous"

    @property
    def name(self) -> str:
        parts = [tables.KERNELS[self.kernel], self.dtype] + ["RGB"] * (self.channels == 3)
        return " ".join(parts + [self.layout] * (self.layout != "contiguous"))


CASES = (
    Case(),
    Case(dtype="bfloat16"),
    Case("mae_q"),
    Case("mae_q", "bfloat16"),
    Case(layout="shifted"),
    Case(layout="offset"),
    Case("mae_q", layout="shifted"),
    Case(channels=3),
    Case(channels=3, layout="channels last"),
    Case("mae_q", channels=3),
    Case(layout=FEW),
    Case("mae_q", layout=FEW),
)


@dataclass(frozen=True)
class Traffic:
    """One pass of one case. Everything per pixel is per pixel and channel.

    ``instructions`` are PTX's, of a thread, without moves between registers, most of which the assembler
    removes; a division or a root is one, and several of the machine's.
    ``load_sectors`` and ``store_sectors`` are the bytes of the 32-byte sectors that an instruction touches
    for a warp, over the bytes its threads ask for. ``reads`` is how often a pixel of the images is loaded,
    ``writes`` how often one of the gradient is stored. ``bank_cycles`` are the cycles that shared memory
    takes, over those it would take without conflicts.
    """

    engine: str
    case: str
    mode: str
    architecture: int
    compiler: str
    instructions: float
    reads: float
    load_sectors: float
    writes: float | None
    store_sectors: float | None
    shared_requests: float
    bank_cycles: float | None


def compiler(engine: str) -> str:
    """What makes the engine's PTX."""
    if engine == "triton":
        import triton

        return f"triton {triton.__version__}"
    major, minor = setup_cuda.toolkit_version(setup_cuda.find_nvcc())
    return f"nvcc {major}.{minor}"


#: Of an engine: (its module, what is recorded of its launches).
Engine = tuple[object, machine.Record]


@contextmanager
def cuda_engine(folder: Path) -> Iterator[Engine]:
    """The CUDA engine on CPU tensors.

    Raises:
        UserError: if it cannot be compiled here.
    """
    from qkernel.engines import cuda

    from .ptx import cuda_runtime

    try:
        module = cuda_runtime.CudaModule(*cuda_runtime.build(ARCHITECTURE, folder))
    except cuda_runtime.Unavailable as error:
        raise UserError(f"the CUDA engine cannot be compiled here: {error}") from error
    before, few = (cuda._cuda, cuda._place), module.few_patches()
    cuda._cuda, cuda._place = module, lambda x: (0, 0)
    try:
        yield cuda, module.record
    finally:
        cuda._cuda, cuda._place = before
        module.set_few_patches(few)


@contextmanager
def triton_engine(folder: Path) -> Iterator[Engine]:
    """The Triton engine on CPU tensors.

    Raises:
        UserError: without Triton.
    """
    if importlib.util.find_spec("triton") is None:
        raise UserError("there is no Triton here: pip install 'qkernel[triton]'")
    from qkernel.engines import triton

    from .ptx.triton_driver import Driver

    with Driver(ARCHITECTURE, OUTPUTS).installed() as driver:
        yield triton, driver.record


ENGINES: dict[str, Callable] = {"cuda": cuda_engine, "triton": triton_engine}


def images(case: Case) -> tuple[Tensor, Tensor]:
    """pred and target."""
    shape = (1, case.channels, SIDE, SIDE)
    pred, target = (x.to(DTYPES[case.dtype]).contiguous() for x in pictures(shape, "photo"))
    if case.layout == "shifted":
        return tuple(torch.nn.functional.pad(x, (1, 0))[..., 1:] for x in (pred, target))
    if case.layout == "channels last":
        return tuple(x.contiguous(memory_format=torch.channels_last) for x in (pred, target))
    return pred, target


def measured(engine_name: str, engine: Engine, case: Case) -> Iterator[Traffic]:
    """Both passes of a case."""
    module, log = engine
    if engine_name == "cuda":
        module._cuda.set_few_patches(SIDE * SIDE if case.layout == FEW else 0)
    elif case.layout == FEW:
        return
    pred, target = images(case)
    offset = torch.tensor(OFFSET, dtype=torch.int32) if case.layout == "offset" else None
    tail = Definition(), offset, 0.1, "mean"
    ones = torch.ones(())
    passes = {
        ("q", "forward"): lambda: module.q(pred, *tail),
        ("q", "backward"): lambda: module.q_grad(ones, pred, *tail),
        ("mae_q", "forward"): lambda: module.pixel_q(pred, target, "l1", 0.0, *tail),
        ("mae_q", "backward"): lambda: module.pixel_q_grad(ones, pred, target, "l1", 0.0, *tail),
    }
    for mode in ("forward", "backward"):
        log.watch, log.counts, log.regions = True, machine.Counts(), []
        passes[case.kernel, mode]()
        yield _row(engine_name, case, mode, log.counts, log.regions, pred.numel())


def _row(engine: str, case: Case, mode: str, counts: machine.Counts, regions: list[Region], pixels: int):
    def touches(names: Sequence[str], of: str) -> float:
        found = [getattr(r, of) for r in regions if r.name in names]
        images = len({r.name for r in regions if r.name in names})
        return sum(int(x.sum()) for x in found) / (images * pixels * DTYPES[case.dtype].itemsize)

    def sectors(what: str) -> float:
        return SECTOR * counts.sectors[what] / counts.bytes[what]

    backward = mode == "backward"
    return Traffic(
        engine,
        case.name,
        mode,
        ARCHITECTURE,
        compiler(engine),
        32 * (counts.warp_instructions - counts.by_opcode["mov"]) / pixels,
        touches(("pred", "x", "target"), "reads"),
        sectors("load"),
        touches(("the gradient", "gradient"), "writes") if backward else None,
        sectors("store") if backward else None,
        counts.shared_requests * 32 / pixels,
        counts.bank_cycles / counts.least_bank_cycles if counts.least_bank_cycles else None,
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder (default: bench/results)")


def run(options: argparse.Namespace) -> int:
    """Count, write CSV and Markdown."""
    rows: list[Traffic] = []
    for name, engine in ENGINES.items():
        with engine(record.ROOT / "build" / "tests" / "ptx") as ready:
            for case in CASES:
                rows += measured(name, ready, case)
                print(f"{name}: {case.name}", flush=True)
    where = record.machine("cpu")
    record.write(options.out / "traffic.csv", rows, where)
    (options.out / "traffic.md").write_text(report(rows))
    print(report(rows))
    print(f"Written: {options.out}/traffic.csv and .md")
    return 0


def report(rows: Sequence[Traffic]) -> str:
    """The counts as Markdown."""
    made_by = " and ".join(dict.fromkeys(row.compiler for row in rows))
    parts = [_HOW.format(side=SIDE, architecture=rows[0].architecture, made_by=made_by)]
    head = (
        "call",
        "instructions",
        "reads",
        "load sectors",
        "writes",
        "store sectors",
        "shared",
        "bank cycles",
    )
    for engine in dict.fromkeys(r.engine for r in rows):
        parts.append(f"## {engine}\n")
        lines = [
            (
                f"{r.case} {r.mode}",
                f"{r.instructions:.1f}",
                *(_number(x) for x in (r.reads, r.load_sectors, r.writes, r.store_sectors)),
                f"{r.shared_requests:.2f}",
                _number(r.bank_cycles),
            )
            for r in rows
            if r.engine == engine
        ]
        parts.append(tables.table(head, lines))
    return "\n".join(parts)


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.2f}"


_HOW = """\
# What the GPU kernels do with memory

Counted while their PTX for sm_{architecture}, by {made_by}, is executed on the CPU, on a photograph of
{side} x {side} pixels: exact for this PTX, whatever the machine, and no times. Written by
`python -m bench traffic`.

- instructions: of PTX, a thread's, per pixel and channel, the kernel that ends a forward pass included;
  without moves between registers, most of which the assembler removes. A division or a root counts as one.
- reads, writes: how often a pixel is loaded, one of the gradient stored. 1 is the least.
- load and store sectors: bytes of the 32-byte sectors that an instruction touches for a warp, over the bytes
  its threads ask for (less than 1 where they ask for the same). Of 2, half of each sector is the next
  instruction's: a load finds it in the L1 cache, a store goes to the L2 cache by halves.
- shared: instructions on shared memory, a thread's, per pixel. bank cycles: the cycles they take, over the
  fewest for so many bytes.
"""

"""Versions of the CUDA kernels side by side: each a folder with csrc/, compiled for this GPU.

For what a change to a kernel brings, before it is made: a worktree of another commit, or a copy with a change
in it. All are loaded into one process and timed in turn, so that the machine's mood is the same for all.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import itertools
import os
import shutil
import subprocess
import sysconfig
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import setup_cuda
from model.errors import UserError
from qkernel import MAEQLoss, QLoss
from qkernel.engines import cuda as engine

from . import gpu_cells, record, tables
from .gpu_cells import BATCH, LARGE, READ, SMALL, Cell
from .limits import OURS, Measured
from .providers import WEIGHT, Inputs, Provider

CELLS = (
    *(Cell(shape, mode, alone=True) for shape in (SMALL, LARGE) for mode in ("forward", "backward", "both")),
    Cell(BATCH, "forward", alone=True),
    *(Cell(LARGE, mode, dtype="bfloat16", alone=True) for mode in ("forward", "backward")),
    *(Cell(LARGE, mode, layout="shifted", alone=True) for mode in ("forward", "backward")),
)

_HOW = """\
Microseconds of captured graphs that are replayed in turn, over inputs that together are three times the L2
cache or more, which is filled with other memory before each; with its share of the bandwidth that
`Tensor.copy_` reaches in the same rounds.
"""


@dataclass(frozen=True)
class Variant(Provider):
    """One version's kernel: whatever it is asked for, the engine is given that version's module."""

    module: types.ModuleType | None = None

    def step(self, inputs: Inputs, mode: str, ready: bool = False) -> Callable[[], object]:
        with using(self.module):
            inner = super().step(inputs, mode, ready)

        def step() -> object:
            with using(self.module):
                return inner()

        return step


@contextmanager
def using(module: types.ModuleType) -> Iterator[None]:
    """The engine runs this module's kernels."""
    before, engine._cuda = engine._cuda, module
    try:
        yield
    finally:
        engine._cuda = before


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "versions", nargs="+", metavar="NAME=FOLDER", help="a name, and the folder that has its csrc/"
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="of a cell's rounds (default 0.5)")
    parser.add_argument("--out", type=Path, default=record.SCRATCH, help="folder (default: runs/bench)")


def run(options: argparse.Namespace) -> int:
    """Compile, compare what they compute, measure, write CSV and Markdown."""
    folders = dict(map(_named, options.versions))
    if not torch.cuda.is_available():
        raise UserError("torch finds no CUDA device: kernels are compared on one")
    machine = record.machine("cuda")
    with tempfile.TemporaryDirectory() as scratch:
        with ThreadPoolExecutor() as pool:
            built = list(pool.map(partial(build, Path(scratch)), folders, folders.values()))
        modules = {name: load(name, path) for name, path in zip(folders, built, strict=True)}
    check(modules)
    gpu_cells.ROUNDS = options.seconds
    rows: list[Measured] = []
    for cell in CELLS:
        try:
            rows += measured(cell, modules)
        except torch.OutOfMemoryError as error:
            print(f"no memory for {cell.name}: {str(error).partition(chr(10))[0]}", flush=True)
        torch.cuda.empty_cache()
        record.write(options.out / "variants.csv", rows, machine)
        text = report(rows, list(modules), machine)
        (options.out / "variants.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"Written: {options.out}/variants.csv and .md")
    return 0


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not name.isidentifier() or name in OURS:
        raise UserError(f"a version is NAME=FOLDER, the name a word but {' or '.join(OURS)}, not {text!r}")
    if not (Path(folder) / "csrc" / "cuda" / "engine.cu").is_file():
        raise UserError(f"{folder} has no csrc/cuda/engine.cu")
    return name, Path(folder)


def build(scratch: Path, name: str, folder: Path) -> Path:
    """The module of a version, for this machine's GPU.

    Raises:
        UserError: without nvcc or a C++ compiler, for a GPU that nvcc does not know, or with what one of them
            said.
    """
    try:
        import pybind11

        nvcc = setup_cuda.find_nvcc()
        numbers = [n for n in setup_cuda.known_architectures(nvcc) if n <= gpu_cells.architecture()]
        libraries = setup_cuda.libraries(nvcc)
    except (setup_cuda.Unavailable, ImportError) as error:
        raise UserError(f"the kernels cannot be compiled: {error}") from error
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    if compiler is None or not numbers:
        lacking = (
            "there is no C++ compiler" if compiler is None else f"{nvcc} knows no GPU as old as this one"
        )
        raise UserError(f"the kernels cannot be compiled: {lacking}")
    kernels, module = scratch / f"{name}.o", scratch / f"{name}.so"
    _run(setup_cuda.nvcc_command(nvcc, numbers[-1:], kernels, folder))
    command = [compiler, "-std=c++17", "-O2", "-g0", "-shared", "-fPIC", "-fvisibility=hidden"]
    command += ["-Wno-unknown-pragmas", f'-DQKERNEL_CUDA_ARCHITECTURES="{numbers[-1]}"']
    command += [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    command += [folder / "csrc" / "cuda" / "bindings.cpp", kernels, "-o", module]
    _run([*command, f"-L{libraries}", *(f"-l{library}" for library in setup_cuda.LINKED)])
    return module


def _run(command: list) -> None:
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-4000:]}")


def load(name: str, path: Path) -> types.ModuleType:
    # Another name for each: of one name, pybind11 makes only one module, and all versions would be the first.
    loader = importlib.machinery.ExtensionFileLoader(f"variant_{name}._cuda", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def losses(name: str, module: types.ModuleType) -> list[Variant]:
    both = (("q", QLoss(engine="cuda"), 1), ("mae_q", MAEQLoss(WEIGHT, engine="cuda"), 2))
    return [Variant(kernel, name, loss, images, module) for kernel, loss, images in both]


def check(modules: dict[str, types.ModuleType], device: str = "cuda") -> None:
    """Whether they compute the same, in every kind of kernel that is timed: otherwise none is to be compared.

    Raises:
        UserError: for a version whose value or gradient differs from the first one's by more than rounding.
    """
    for (height, width), dtype in itertools.product(
        ((264, 320), (1000, 1032)), (torch.float32, torch.bfloat16)
    ):
        generator = torch.Generator(device).manual_seed(0)
        pixels = torch.rand(2, 2, 1, height, width, device=device, generator=generator)
        contiguous = Inputs.of(*pixels, dtype, device)
        for inputs in (contiguous, gpu_cells._shifted(contiguous)):
            first: dict[str, list[torch.Tensor]] = {}
            for name, module in modules.items():
                for loss in losses(name, module):
                    with using(module):
                        value = loss(inputs)
                        (gradient,) = torch.autograd.grad(value, inputs.pred)
                    found = [value.detach(), gradient]
                    for a, b in zip(found, first.setdefault(loss.kernel, found), strict=True):
                        error = ((a.double() - b.double()).norm() / b.double().norm()).item()
                        # A value is float32; of a gradient a pixel may be rounded the other way.
                        if not error < (1e-6 if a.dim() == 0 else 1e-5 if dtype is torch.float32 else 1e-3):
                            place = f"{loss.kernel} of {height} x {width}, {dtype}"
                            raise UserError(f"{name} computes something else for {place}: {error:.1g} away")


def measured(cell: Cell, modules: dict[str, types.ModuleType]) -> list[Measured]:
    copy = Provider("copy", "torch", lambda pred, target: pred, images=1)
    rivals = [loss for name, module in modules.items() for loss in losses(name, module)]
    return gpu_cells.measured(cell, [*rivals, copy, READ])


def report(rows: Sequence[Measured], names: Sequence[str], machine: record.Machine) -> str:
    parts = ["# Versions of the CUDA kernels\n", record.describe(machine) + "\n", _HOW]
    lines = []
    for key in dict.fromkeys((r.shape, r.dtype, r.mode, r.layout, r.kernel) for r in rows):
        *cell, kernel = key
        if kernel not in ("q", "mae_q"):
            continue
        found = {r.provider: r for r in rows if (r.shape, r.dtype, r.mode, r.layout, r.kernel) == key}
        shape, dtype, mode, layout = cell
        title = f"{tables.KERNELS[kernel]} {tables.size(shape)} {dtype} {mode}"
        title += f" {layout}" * (layout != "contiguous")
        lines.append([title, *(_cell(found.get(name)) for name in names)])
    parts += ["## Times\n", tables.table(["microseconds (of a copy's bandwidth)", *names], lines)]
    return "\n".join(parts)


def _cell(row: Measured | None) -> str:
    if row is None or row.ms_p50 is None:
        return row.note if row else ""
    return f"{1e3 * row.ms_p50:.4g} ({row.share_of_copy:.1%})"

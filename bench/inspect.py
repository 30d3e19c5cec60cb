"""What the Triton kernels compile to, for every GPU generation, on a machine that has none.

Kernels are compiled as a launch would: the launch code itself runs, on tensors that are never read, up to the
point where a kernel would start. Registers, spills, vector loads and instructions are then read from the
machine code, by the disassembler that comes with Triton. Exits with 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import functools
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from qkernel import Definition

#: Compute capabilities: Turing, A100, RTX 30, RTX 40, Hopper, data-centre Blackwell, RTX 50.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

SIDE = 4096
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Variant:
    """One call whose kernel is inspected: "value", "gradient", or "finish", which ends a value."""

    kernel: str
    definition: str = "zhu2010"
    patch_size: int = 8
    dtype: str = "float32"
    channels: int = 1
    pixel: str = "none"
    target: str = "float32"
    general: bool = False
    offset: bool = False
    eps: float = 0.0
    width: int = SIDE

    @property
    def name(self) -> str:
        parts = [self.kernel, self.definition, f"N{self.patch_size}", self.dtype]
        parts += ["rgb"] * (self.channels == 3)
        parts += [f"{self.pixel}/{self.target}"] * (self.pixel != "none")
        parts += ["general"] * self.general + ["offset"] * self.offset + ["eps"] * (self.eps > 0)
        return " ".join(parts + [f"W{self.width}"] * (self.width != SIDE))


@dataclass(frozen=True)
class Report:
    """What a kernel became. ``instructions`` are those in the machine code, per pixel and thread.

    Loops over channels are counted once, unless the compiler unrolls them. ``spilled`` counts instructions
    that touch local memory, ``conversions`` changes of a block's layout, for which threads exchange values
    without being asked to. ``seconds`` are those of the compilation: hardly any for what Triton's cache has.
    """

    variant: Variant
    architecture: int
    warps: int
    registers: int
    stack: int
    shared: int
    conversions: int
    spilled: int
    vector_loads: int
    loads: int
    vector_stores: int
    stores: int
    instructions: float
    seconds: float

    @property
    def occupancy(self) -> int:
        """Warps that one multiprocessor's 65536 registers hold, in whole blocks of the kernel."""
        block = self.warps * 32 * -(-self.registers // 8) * 8
        return 65536 // block * self.warps


#: (kernel, definition's gradient, patch size): instructions per pixel that a float32 image may take.
INSTRUCTIONS = {
    ("value", "central", 4): 34,
    ("value", "central", 8): 17,
    ("value", "central", 16): 23,
    ("value", "sobel", 4): 30,
    ("value", "sobel", 8): 15,
    ("value", "sobel", 16): 23,
    ("gradient", "central", 4): 58,
    ("gradient", "central", 8): 35,
    ("gradient", "central", 16): 44,
    ("gradient", "sobel", 4): 54,
    ("gradient", "sobel", 8): 33,
    ("gradient", "sobel", 16): 48,
}


def instruction_limit(variant: Variant) -> float:
    """Instructions per pixel; more where more is asked for."""
    gradient = Definition(variant.definition).formula.gradient
    limit = INSTRUCTIONS[variant.kernel, gradient, variant.patch_size]
    if variant.dtype != "float32":
        # A conversion each way.
        limit += 3
    if variant.general:
        # Each pixel has its own address, and four columns a lane share what is done per patch.
        limit += 16 if variant.kernel == "value" else 24
    if variant.channels == 3 or variant.pixel != "none":
        limit += 18 if variant.kernel == "value" else 28
        limit += 2 if variant.pixel == "charbonnier" else 0
        # Two columns a lane instead of four: twice the work per patch and between lanes.
        two = variant.kernel == "gradient" or (variant.channels == 3 and variant.pixel == "charbonnier")
        limit += 30 if variant.patch_size == 16 and two else 0
    if variant.channels == 3:
        # Both at once. And of the smallest patches the compilers unroll the loop over channels, whose
        # instructions then count several times.
        limit += 8 if variant.pixel != "none" else 0
        limit += 14 if variant.patch_size == 4 else 0
    return limit


def violations(report: Report) -> list[str]:
    """Which limits a kernel breaks."""
    variant, found = report.variant, []
    if report.stack or report.spilled:
        found.append(f"spills: {report.stack} bytes of stack, {report.spilled} local-memory instructions")
    if variant.kernel == "finish":
        return found
    if not variant.general:
        # The gradient kernel reads grad_output besides.
        scalar = max(0, report.loads - report.vector_loads - (variant.kernel == "gradient"))
        if scalar or (variant.kernel == "gradient" and report.stores > report.vector_stores):
            found.append(f"{scalar} narrow loads and {report.stores - report.vector_stores} narrow stores")
    if report.conversions:
        found.append(f"{report.conversions} conversions of a block's layout")
    if report.shared > 64:
        found.append(f"{report.shared} bytes of shared memory: a block changes hands between threads")
    if report.instructions > (limit := instruction_limit(variant)):
        found.append(f"{report.instructions:.1f} instructions per pixel, more than {limit:.0f}")
    return found


def few() -> Iterator[tuple[Variant, int]]:
    """Every architecture for the main kernels, and every other feature once, on different architectures."""
    for architecture in ARCHITECTURES:
        for kernel in ("value", "gradient"):
            yield Variant(kernel), architecture
    yield Variant("finish", pixel="l1", offset=True), 75
    for kernel in ("value", "gradient"):
        yield Variant(kernel, "mmsp2024"), 75
        yield Variant(kernel, patch_size=16), 80
        yield Variant(kernel, "pythonq", patch_size=4, dtype="float16"), 86
        yield Variant(kernel, dtype="bfloat16", width=1000), 89
        yield Variant(kernel, patch_size=16, width=1000), 120
        for architecture in (80, 90, 120):
            yield Variant(kernel, pixel="l1"), architecture
            yield Variant(kernel, dtype="bfloat16", pixel="l1"), architecture
        yield Variant(kernel, channels=3, pixel="l1"), 90
        yield Variant(kernel, channels=3), 86
        yield Variant(kernel, patch_size=4, dtype="bfloat16", pixel="l1"), 86
        yield Variant(kernel, pixel="l1", general=True), 89
        yield Variant(kernel, dtype="bfloat16", pixel="charbonnier"), 100
        yield Variant(kernel, general=True, offset=True), 120


def compiled(variant: Variant, architecture: int) -> Report:
    """Compile one kernel for one architecture and read its machine code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function, arguments, options = _launch_of(variant)
    signature, constants, hints = {}, {}, {}
    for index, name in enumerate(function.arg_names):
        argument = arguments[name]
        if name in function.constexprs_by_name or argument is None:
            signature[name], constants[name] = "constexpr", argument
        elif isinstance(argument, torch.Tensor):
            signature[name] = f"*{_NAMES[argument.dtype]}"
            if argument.data_ptr() % 16 == 0:
                hints[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(argument, float) else "i32"
    source = ASTSource(function.jit, signature, constexprs=constants, attrs=hints)
    begin = time.perf_counter()
    binary = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    seconds = time.perf_counter() - begin
    # Of the finishing kernel, a thread's partial sums stand for pixels.
    if "C" in constants:
        pixels = constants["GROUP"] * constants["C"] * variant.patch_size
    else:
        pixels = constants["BLOCK"] / (32 * options["num_warps"])
    conversions = binary.asm["ttgir"].count("ttg.convert_layout")
    facts = variant, architecture, options["num_warps"], binary.metadata.shared, conversions, pixels, seconds
    return _read(binary.asm["cubin"], *facts)


_NAMES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int32: "i32",
    torch.float64: "fp64",
}


class _Recorder:
    """Stands in for a kernel and keeps what it would be launched with."""

    def __init__(self, kernel) -> None:
        self.jit = kernel
        self.arg_names = kernel.arg_names
        self.constexprs_by_name = {p.name for p in kernel.params if p.is_constexpr}
        self.call: tuple[dict, dict] | None = None

    def __getitem__(self, grid):
        def launch(*positional, **named):
            arguments = dict(zip(self.arg_names, positional, strict=False))
            arguments |= {k: v for k, v in named.items() if k in self.arg_names}
            self.call = arguments, {k: v for k, v in named.items() if k not in self.arg_names}

        return launch


def _launch_of(variant: Variant) -> tuple[_Recorder, dict, dict]:
    from qkernel.engines.triton_kernels import launch

    # Large, so that the table of launch configurations answers as for a large image; nothing touches the
    # memory.
    shape = (1, variant.channels, SIDE, variant.width)
    x, target = (torch.empty(shape, dtype=DTYPES[d]) for d in (variant.dtype, variant.target))
    if variant.general:
        # The same pixels with a column stride that is not 1.
        x, target = (image.transpose(2, 3) for image in (x, target))
    with_pixel = variant.pixel != "none"
    arguments = (
        x,
        target if with_pixel else None,
        variant.pixel,
        1e-3,
        Definition(variant.definition, variant.patch_size, eps=variant.eps),
        torch.zeros(2, dtype=torch.int32) if variant.offset else None,
        1.0,
        "mean",
    )
    name = f"{variant.kernel}_kernel"
    kernels = {
        kernel: getattr(launch, kernel) for kernel in ("value_kernel", "gradient_kernel", "finish_kernel")
    }
    recorders = {kernel: _Recorder(function) for kernel, function in kernels.items()}
    try:
        for kernel, stand_in in recorders.items():
            setattr(launch, kernel, stand_in)
        if variant.kernel == "gradient":
            launch.gradient(torch.ones(()), *arguments)
        else:
            launch.value(*arguments)
    finally:
        for kernel, function in kernels.items():
            setattr(launch, kernel, function)
    recorder = recorders[name]
    return recorder, *recorder.call


_INSTRUCTION = re.compile(
    r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P[0-9T]+ )?([A-Z][A-Z0-9_]*)([.A-Z0-9_]*)", re.MULTILINE
)
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")


def _read(
    cubin: bytes,
    variant: Variant,
    architecture: int,
    warps: int,
    shared: int,
    conversions: int,
    pixels: float,
    seconds: float,
) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _tool("cuobjdump", "-res-usage", str(path))
        listing = _INSTRUCTION.findall(_tool("nvdisasm", str(path)))
    registers, stack, local = map(int, _USAGE.search(usage).groups())
    counts = Counter(name for name, _ in listing)
    # With 16 rows a lane has room for fewer columns, in half precision as few as 4 bytes; see `launch`.
    half = variant.dtype != "float32" or (variant.pixel != "none" and variant.target != "float32")
    widths = (".128",) if variant.patch_size != 16 else ("",) if half else (".64", ".128")
    vectors = Counter(name for name, modifiers in listing if any(width in modifiers for width in widths))
    # NOP pads the code, a branch to itself ends it.
    working = len(listing) - counts["NOP"]
    return Report(
        variant,
        architecture,
        warps,
        registers,
        max(stack, local),
        shared,
        conversions,
        counts["LDL"] + counts["STL"],
        vectors["LDG"],
        counts["LDG"],
        vectors["STG"],
        counts["STG"],
        working / pixels,
        seconds,
    )


@functools.cache
def _tools() -> Path:
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def _tool(name: str, *arguments: str) -> str:
    done = subprocess.run([_tools() / name, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")
    return done.stdout


def line(report: Report) -> str:
    """One row of the table."""
    return (
        f"{report.variant.name:<52} sm_{report.architecture:<4} {report.warps:>5} {report.registers:>5} "
        f"{report.occupancy:>9} {report.stack:>5} {report.shared:>6} {report.conversions:>7} "
        f"{report.vector_loads:>4}/{report.loads:<4} {report.vector_stores:>4}/{report.stores:<4} "
        f"{report.instructions:>9.1f}"
    )


HEAD = (
    f"{'kernel':<52} {'arch':<7} {'warps':>5} {'regs':>5} {'warps/SM':>9} {'stack':>5} {'shared':>6} "
    f"{'layouts':>7} {'vec/loads':>9} {'vec/stores':>10} {'instr/px':>8}"
)


def show(report: Report) -> int:
    """Print a row of the table and what breaks a limit; returns how much does."""
    print(line(report), flush=True)
    broken = violations(report)
    for violation in broken:
        print(f"    LIMIT BROKEN: {violation}", flush=True)
    return len(broken)


def verdict(broken: int) -> int:
    """Say whether all limits are kept; 1 if not."""
    print(f"{broken} limits broken" if broken else "all limits kept")
    return 1 if broken else 0


def arguments(parser: argparse.ArgumentParser) -> None:
    from . import inspect_all

    parser.add_argument(
        "--arch", type=int, nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES, help="only these"
    )
    inspect_all.arguments(parser.add_argument_group("every variant, with a record: takes most of an hour"))


def run(options: argparse.Namespace) -> int:
    """Print the table; 1 if a limit is broken."""
    if options.all:
        from . import inspect_all

        return inspect_all.run(options)
    print(HEAD)
    return verdict(sum(show(compiled(*one)) for one in few() if one[1] in options.arch))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench inspect", description=__doc__)
    arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())

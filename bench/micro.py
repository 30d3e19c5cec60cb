"""Time, bandwidth and memory of Q as a loss: engines x sizes x dtypes x modes, all providers interleaved."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.errors import UserError

from . import cuda, memory, plot, reach, record, tables, timing
from .content import CONTENTS, DTYPES, pictures
from .providers import MODES, Inputs, Provider, engines, providers
from .record import Timing

Shape = tuple[int, int, int, int]

SIZES: tuple[Shape, ...] = ((32, 1, 128, 128), (8, 3, 256, 256), (1, 1, 2048, 2048), (1, 1, 4096, 4096))
QUICK_SIZES = SIZES[::2]
COMPILE = {"none": (), "some": ("q",), "all": ("q", "mae_q")}


@dataclass(frozen=True)
class Plan:
    """What a run measures. ``seconds`` is the time for the rounds of one size, dtype and mode."""

    engines: list[str]
    sizes: tuple[Shape, ...] = SIZES
    dtypes: tuple[str, ...] = tuple(DTYPES)
    modes: tuple[str, ...] = MODES
    content: str = "photo"
    device: str = "cpu"
    compile: str = "some"
    seconds: float = 2.0

    def budget(self, shape: Shape, dtype: str) -> float:
        """Four times as long where there are targets to decide."""
        return self.seconds * (4 if dtype == "float32" and shape in (reach.SMALL, reach.LARGE) else 1)

    def compiled(self, dtype: str) -> tuple[str, ...]:
        """The kernels to compile: half a minute each, so by default only Q in float32."""
        return COMPILE[self.compile] if self.compile == "all" or dtype == "float32" else ()


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="two sizes, float32, no torch.compile: a minute")
    parser.add_argument("--engines", nargs="+", help="which engines (default: all there are)")
    parser.add_argument("--sizes", nargs="+", type=_shape, metavar="NxCxHxW", help="image batches")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES)
    parser.add_argument("--modes", nargs="+", choices=MODES)
    parser.add_argument("--content", choices=CONTENTS, default="photo", help="what the images show")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", choices=COMPILE, help="torch.compile: some = Q in float32 (default)")
    parser.add_argument("--seconds", type=float, help="time for each size, dtype and mode (default 2)")
    parser.add_argument("--out", type=Path, help="folder (default: bench/results for all, else runs/bench)")


def run(options: argparse.Namespace) -> int:
    """Measure, and write CSV, Markdown and plot."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu")
    if options.seconds is not None and not options.seconds > 0:
        raise UserError(f"--seconds must be positive, not {options.seconds}")
    chosen = {
        "sizes": tuple(options.sizes) if options.sizes else QUICK_SIZES if options.quick else None,
        "dtypes": tuple(options.dtypes) if options.dtypes else ("float32",) if options.quick else None,
        "modes": tuple(options.modes) if options.modes else None,
        "compile": options.compile or ("none" if options.quick else None),
        "seconds": options.seconds or (1.5 if options.quick else None),
    }
    plan = Plan(
        engines(options.device, options.engines),
        content=options.content,
        device=options.device,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    complete = not options.engines and plan == Plan(plan.engines, device=plan.device)
    folder = options.out or (record.RESULTS if complete else record.SCRATCH)
    machine = record.machine(plan.device)
    others = record.Others()
    rows = []
    for found in measure(plan, lambda line: print(line, flush=True)):
        rows += found
        # After each cell, so that an interrupted run leaves what it has.
        record.write(folder / f"micro_{plan.device}.csv", rows, machine)
    text = tables.micro(rows, machine, others.share())
    (folder / f"micro_{plan.device}.md").write_text(text)
    plot.micro(rows, machine, folder / f"micro_{plan.device}.png")
    print(text)
    print(f"Written: {folder}/micro_{plan.device}.csv, .md and .png")
    return 0


def measure(plan: Plan, say: Callable[[str], None] = lambda line: None):
    """The rows of one size, dtype and mode after the other."""
    start = time.perf_counter()
    for shape in plan.sizes:
        pred, target = pictures(shape, plan.content)
        for dtype in plan.dtypes:
            sets = 1 if plan.device == "cpu" else cuda.sets_needed(pred.numel() * DTYPES[dtype].itemsize)
            inputs = [Inputs.of(pred, target, DTYPES[dtype], plan.device) for _ in range(sets)]
            candidates = providers(plan.engines, plan.compiled(dtype))
            for mode in plan.modes:
                rows = _cell(plan, shape, dtype, mode, inputs, candidates)
                elapsed = time.perf_counter() - start
                say(f"{elapsed:5.0f} s  {_line(shape, dtype, mode, rows)}")
                yield rows
            torch.compiler.reset()


def _cell(
    plan: Plan, shape: Shape, dtype: str, mode: str, inputs: list[Inputs], candidates: list[Provider]
) -> list[Timing]:
    blank = Timing("", "", mode, dtype, *shape, plan.content)
    failed, ready = [], []
    for provider in candidates:
        row = replace(blank, kernel=provider.kernel, provider=provider.name)
        begin = time.perf_counter()
        try:
            with nullcontext() if plan.device == "cpu" else cuda.on_side():
                steps = [provider.step(one, mode) for one in inputs]
                steps[0]()
        except Exception as error:
            if provider.name != "compile":
                raise
            # Compilation is torch's affair, and a failure of it is a result like any other.
            failed.append(replace(row, note=f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"))
            continue
        row = replace(row, first_call_s=time.perf_counter() - begin)
        ready.append(
            (provider, replace(row, **memory.of_step(provider, inputs[0], mode, plan.device)), steps)
        )

    others = record.Others()
    budget = plan.budget(shape, dtype)
    if plan.device == "cpu":
        samples = timing.interleave([steps[0] for _, _, steps in ready], budget)
    else:
        replays = [cuda.captured(steps) for _, _, steps in ready]
        samples = timing.interleave(replays, budget, clock=timing.cuda_clock)
    busy = others.share()

    pixels, itemsize = inputs[0].pred.numel(), DTYPES[dtype].itemsize
    rows = []
    for (provider, row, _), sample in zip(ready, samples, strict=True):
        low, middle, high = (sample.ms(p) / len(inputs) for p in (20, 50, 80))
        rate = provider.bytes_moved(mode, pixels, itemsize) / middle / 1e6
        rows.append(
            replace(
                row,
                ms_p20=low,
                ms_p50=middle,
                ms_p80=high,
                rounds=len(sample.seconds),
                gbytes_per_s=rate,
                others=busy,
            )
        )
    copy = next(row.gbytes_per_s for row in rows if row.kernel == "copy")
    return [replace(row, share_of_copy=row.gbytes_per_s / copy) for row in rows] + failed


def _line(shape: Shape, dtype: str, mode: str, rows: list[Timing]) -> str:
    times = "  ".join(f"{r.kernel}/{r.provider} {r.ms_p50:.3g}" for r in rows if r.ms_p50 is not None)
    busy = rows[0].others is not None and rows[0].others > record.BUSY
    warning = f"  [busy: others {rows[0].others:.0%}]" if busy else ""
    return f"{tables.size(shape)} {dtype} {mode}, ms: {times}{warning}"


def _shape(text: str) -> Shape:
    try:
        n, c, h, w = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 32x1x128x128") from None
    if n < 1 or c not in (1, 3) or h < 8 or w < 8:
        raise argparse.ArgumentTypeError(f"{text!r}: C must be 1 or 3, H and W at least 8")
    return n, c, h, w

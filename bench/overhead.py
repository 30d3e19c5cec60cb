"""What one call costs when there is next to nothing to compute: microseconds, layer by layer."""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.errors import UserError
from qkernel import Definition, MAEQLoss, QLoss, q_metric
from qkernel.differentiation import Q
from qkernel.engines import ENGINES, choose

from . import record, tables, timing
from .content import pictures
from .providers import WEIGHT, engines
from .record import Timing

SHAPE = (1, 1, 16, 16)
PROFILED = 2000


@dataclass(frozen=True)
class Call:
    """One layer's call. ``kernel``, ``provider`` (the layer) and ``mode`` are what it is recorded under."""

    kernel: str
    provider: str
    mode: str
    function: Callable[[], object]


def calls(engine: str) -> list[Call]:
    """From the engine's own function outwards, each layer calling the one before; then torch's l1_loss."""
    pred, target = (x.float() for x in pictures(SHAPE, "photo"))
    leaf = pred.clone().requires_grad_()
    d = Definition()
    settings = (d.name, d.patch_size, d.delta, d.data_range, d.eps)
    tail = (-1.0, "mean", engine)
    one = torch.ones(())
    chosen = choose(engine, pred, d)
    ops = torch.ops.qkernel
    pixel = ("l1", 1e-3)
    q_module, mae_q_module = QLoss(engine=engine), MAEQLoss(WEIGHT, engine=engine)
    l1_loss = torch.nn.functional.l1_loss

    def both(function: Callable[..., torch.Tensor], *arguments: object) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*arguments), leaf)

    return [
        Call("q", "engine", "forward", lambda: chosen.q(pred, d, None, -1.0, "mean")),
        Call("q", "engine", "backward", lambda: chosen.q_grad(one, pred, d, None, -1.0, "mean")),
        Call("q", "op", "forward", lambda: ops.q(pred, *settings, None, *tail)),
        Call("q", "op", "backward", lambda: ops.q_grad(one, pred, *settings, None, *tail)),
        Call("q", "op", "both", both(ops.q, leaf, *settings, None, *tail)),
        Call("q", "Function", "forward", lambda: Q.apply(pred, None, settings, tail)),
        Call("q", "Function", "both", both(Q.apply, leaf, None, settings, tail)),
        Call("q", "q_metric", "forward", lambda: q_metric(pred, engine=engine)),
        Call("q", "QLoss", "forward", lambda: q_module(pred)),
        Call("q", "QLoss", "both", both(q_module, leaf)),
        Call(
            "mae_q", "engine", "forward", lambda: chosen.pixel_q(pred, target, *pixel, d, None, 0.01, "mean")
        ),
        Call(
            "mae_q",
            "engine",
            "backward",
            lambda: chosen.pixel_q_grad(one, pred, target, *pixel, d, None, 0.01, "mean"),
        ),
        Call("mae_q", "MAEQLoss", "forward", lambda: mae_q_module(pred, target)),
        Call("mae_q", "MAEQLoss", "both", both(mae_q_module, leaf, target)),
        Call("l1_loss", "torch", "forward", lambda: l1_loss(pred, target)),
        Call("l1_loss", "torch", "both", both(l1_loss, leaf, target)),
    ]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", help="which engine (default: the one that auto takes)")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for all rounds (default 20)")
    parser.add_argument("--profile", action="store_true", help="also say in which functions the time goes")
    parser.add_argument("--out", type=Path, help="folder (default: bench/results, eager: runs/bench)")


def run(options: argparse.Namespace) -> int:
    """Measure, and write CSV and Markdown."""
    if not options.seconds > 0:
        raise UserError(f"--seconds must be positive, not {options.seconds}")
    engine = engines("cpu", [options.engine] if options.engine else None)[0]
    folder = options.out or (record.SCRATCH if ENGINES[engine] is ENGINES["eager"] else record.RESULTS)
    machine, others = record.machine("cpu"), record.Others()
    found = calls(engine)
    rows = measure(found, options.seconds)
    busy = others.share()
    rows = [replace(row, others=busy, note=f"engine {engine}") for row in rows]
    record.write(folder / "overhead_cpu.csv", rows, machine)
    text = report(rows, machine, engine)
    (folder / "overhead_cpu.md").write_text(text)
    print(text)
    print(f"Written: {folder}/overhead_cpu.csv and .md")
    if options.profile:
        for call in found:
            if call.provider in ("QLoss", "MAEQLoss") and call.mode == "both":
                profile(call)
    return 0


def measure(found: list[Call], seconds: float) -> list[Timing]:
    """Interleaved like all timings; one sample is as many calls as take about a millisecond."""
    steps, counts = [], []
    for call in found:
        for _ in range(20):
            call.function()
        start = time.perf_counter()
        for _ in range(20):
            call.function()
        counts.append(max(1, round(1e-3 / ((time.perf_counter() - start) / 20))))
        steps.append(timing.repeated(call.function, counts[-1]))
    samples = timing.interleave(steps, seconds, most=2000)
    rows = []
    for call, count, sample in zip(found, counts, samples, strict=True):
        low, middle, high = (sample.ms(p) / count for p in (20, 50, 80))
        row = Timing(call.kernel, call.provider, call.mode, "float32", *SHAPE, "photo", low, middle, high)
        rows.append(replace(row, rounds=len(sample.seconds)))
    return rows


def report(rows: list[Timing], machine: record.Machine, engine: str) -> str:
    """Microseconds as Markdown."""
    times = {(r.kernel, r.provider, r.mode): r.ms_p50 * 1e3 for r in rows}
    l1 = times["l1_loss", "torch", "both"]
    lines = [
        [
            f"{tables.KERNELS[r.kernel]}: {r.provider}",
            r.mode,
            f"{r.ms_p50 * 1e3:.1f} ({r.ms_p20 * 1e3:.1f} - {r.ms_p80 * 1e3:.1f})",
            f"{r.ms_p50 * 1e3 / l1:.2f}" if r.mode == "both" else "",
        ]
        for r in rows
    ]
    return "\n".join(
        [
            f"# Overhead of a call: engine {engine}, {tables.size(SHAPE)} float32\n",
            record.describe(machine, rows[0].others) + "\n",
            "Microseconds per call, medians (20th - 80th percentile) of interleaved runs. Each layer calls\n"
            "the one above it: engine, op, autograd Function, public function or module. The difference is\n"
            "what a layer adds.\n",
            tables.table(["layer", "mode", "us", "of l1_loss both"], lines, left=2),
        ]
    )


def profile(call: Call) -> None:
    """Print the functions in which the calls spend their time. The profiler itself slows Python code down."""
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(PROFILED):
        call.function()
    profiler.disable()
    print(f"\n{call.provider} {call.mode}: own time of the dearest functions in {PROFILED} calls, in seconds")
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(18)

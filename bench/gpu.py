"""Everything that needs a GPU, in one command within ten minutes: hardware tests, benchmark, a training run.

Runs with the python3 at hand: torch >= 2.11, triton >= 3.6 and pytest are enough, no network and no
environment of its own. Exits with 1 if a test fails, with 2 without a CUDA device.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from . import cuda, record, tables, timing
from .content import DTYPES, pictures
from .providers import Inputs, engines, providers
from .record import Timing

#: Seconds that all of it may take, and of these the tests. A cell is only begun while there is time for it.
BUDGET = 390.0
TEST_BUDGET = 200.0
LAST_WORDS = 10.0
TRAIN_BUDGET = 170.0
#: Of these, seconds of steady steps; and the steps of the run whose curve is kept.
TRAIN_SECONDS = 70
CURVE_STEPS = 3000
CELL = 20.0
COMPILED_CELL = 60.0

SMALL, LARGE = (32, 1, 128, 128), (1, 1, 8192, 8192)

#: Where tests are marked `gpu`.
GPU_TESTS = ("tests/cuda", "tests/triton", "tests/qkernel", "tests/model/test_trainer_gpu.py")

#: In order of importance, since time may run out: (shape, dtype, mode). The half-precision rates are compared
#: with float32's of the same shape; the rest shows from which size on it pays, and where it does not.
CELLS = (
    (LARGE, "float32", "forward"),
    (LARGE, "float32", "both"),
    (SMALL, "float32", "both"),
    (LARGE, "bfloat16", "both"),
    (LARGE, "float32", "backward"),
    ((1, 1, 2048, 2048), "float32", "both"),
    ((1, 1, 4096, 4096), "float32", "both"),
    (SMALL, "float32", "forward"),
    (LARGE, "float16", "both"),
    ((8, 3, 256, 256), "float32", "both"),
    ((64, 1, 1000, 1000), "float32", "both"),
    ((16, 3, 2048, 2048), "float32", "both"),
    (SMALL, "bfloat16", "both"),
    # Hundreds of inputs to exceed the cache, each with many kernels of plain torch: it takes longest.
    ((1, 1, 256, 256), "float32", "both"),
)

#: Where torch.compile is measured beside the rest; it takes most of a minute to compile.
COMPILED = {(LARGE, "float32", "both"), (SMALL, "float32", "both")}

#: Engines whose failure ends the run.
OURS = ("cuda", "triton")

#: Calls from Python that are timed without a graph, for what they cost the processor.
CALLS = 200


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tests-only", action="store_true", help="no benchmark")
    parser.add_argument("--bench-only", action="store_true", help="no tests")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder (default: bench/results)")


def run(options: argparse.Namespace) -> int:
    """Test, measure, write CSV and Markdown."""
    start = time.perf_counter()
    if not torch.cuda.is_available():
        print("error: torch finds no CUDA device: the GPU tests and benchmark need one", file=sys.stderr)
        return 2
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {sys.version.split()[0]}",
        flush=True,
    )
    passed = options.bench_only or run_tests(TEST_BUDGET)
    if not options.tests_only:
        bench(options.out, start + BUDGET)
        passed = train(options.out) and passed
    return 0 if passed else 1


def train(folder: Path) -> bool:
    """Training speed and a loss curve, in a process of its own, which a time limit can end."""
    command = [sys.executable, "-m", "bench", "train", "--device", "cuda", "--out", str(folder)]
    command += ["--seconds", str(TRAIN_SECONDS), "--curve", str(CURVE_STEPS)]
    try:
        return subprocess.run(command, cwd=record.ROOT, timeout=TRAIN_BUDGET, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"error: the training run took more than {TRAIN_BUDGET:.0f} s", file=sys.stderr)
        return False


def run_tests(seconds: float) -> bool:
    """Run the tests marked `gpu`, by pytest if there is one."""
    if importlib.util.find_spec("pytest") is None:
        print("error: the tests need pytest: pip install pytest, or --bench-only", file=sys.stderr)
        return False
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *GPU_TESTS]
    # What one module lacks is no reason to leave the others out.
    command += ["--continue-on-collection-errors"]
    if importlib.util.find_spec("xdist") is not None:
        # Most of the time goes into compiling kernels, on the processor.
        # One test at a time: the long ones follow one another.
        command += ["-n", str(min(8, os.cpu_count() or 1)), "--maxschedchunk=1"]
    # A group of its own: what its workers have started ends with it, and is not there during the timings.
    tests = subprocess.Popen(command, cwd=record.ROOT, start_new_session=True)
    try:
        return tests.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        print(f"error: the tests took more than {seconds:.0f} s", file=sys.stderr)
        tests.send_signal(signal.SIGINT)  # it says which have failed
        with suppress(subprocess.TimeoutExpired):
            tests.wait(LAST_WORDS)
        return False
    finally:
        with suppress(ProcessLookupError):
            os.killpg(tests.pid, signal.SIGKILL)
        tests.wait()


def bench(folder: Path, end: float) -> None:
    """Measure the cells for which there is time, and write what was measured after each of them."""
    machine, others = record.machine("cuda"), record.Others()
    rows: list[Timing] = []
    for found in measure(end):
        rows += found
        record.write(folder / "gpu_triton.csv", rows, machine)
        (folder / "gpu_triton.md").write_text(report(rows, machine, others.share()))
    print(report(rows, machine, others.share()))
    print(f"Written: {folder}/gpu_triton.csv and .md")


def measure(end: float) -> Iterator[list[Timing]]:
    """The rows of one cell after the other."""
    yield call_overhead()
    for shape, dtype, mode in CELLS:
        compiled = (shape, dtype, mode) in COMPILED
        if time.perf_counter() + CELL + compiled * COMPILED_CELL > end:
            print(f"no time left for {tables.size(shape)} {dtype} {mode}", flush=True)
            continue
        yield cell(shape, dtype, mode, ("q",) if compiled else ())
        torch.compiler.reset()
        torch.cuda.empty_cache()


def cell(shape: tuple[int, int, int, int], dtype: str, mode: str, compiled: tuple[str, ...]) -> list[Timing]:
    """All providers on one size, each a captured graph over inputs that together exceed the cache."""
    # The pattern repeats every few hundred pixels anyway, and a photograph of 64 megapixels takes long to
    # make.
    pred, target = (_tiled(x, shape) for x in pictures((1, *shape[1:2], 512, 512), "photo"))
    sets = cuda.sets_needed(pred.numel() * DTYPES[dtype].itemsize)
    inputs = [Inputs.of(pred, target, DTYPES[dtype], "cuda") for _ in range(sets)]
    blank = Timing("", "", mode, dtype, *shape, "photo")
    failed, ready = [], []
    for provider in providers(engines("cuda"), compiled):
        row = replace(blank, kernel=provider.kernel, provider=provider.name)
        try:
            begin = time.perf_counter()
            with cuda.on_side():
                steps = [provider.step(one, mode) for one in inputs]
                steps[0]()
            torch.cuda.synchronize()
            row = replace(row, first_call_s=time.perf_counter() - begin)
            ready.append((provider, row, cuda.captured(steps)))
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            # Plain torch may not fit, and torch.compile may fail: a result like any other, but not for us.
            if provider.name in OURS:
                raise
            failed.append(replace(row, note=f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"))
            torch.cuda.empty_cache()
    samples = timing.interleave([replay for _, _, replay in ready], 3.0, clock=timing.cuda_clock)
    rows = []
    for (provider, row, _), sample in zip(ready, samples, strict=True):
        low, middle, high = (sample.ms(p) / sets for p in (20, 50, 80))
        rate = provider.bytes_moved(mode, pred.numel(), DTYPES[dtype].itemsize) / middle / 1e6
        rounds = len(sample.seconds)
        rows.append(replace(row, ms_p20=low, ms_p50=middle, ms_p80=high, rounds=rounds, gbytes_per_s=rate))
    copy = next(row.gbytes_per_s for row in rows if row.kernel == "copy")
    times = "  ".join(f"{r.kernel}/{r.provider} {r.ms_p50:.3g}" for r in rows)
    print(f"{tables.size(shape)} {dtype} {mode}, ms: {times}", flush=True)
    return [replace(row, share_of_copy=row.gbytes_per_s / copy) for row in rows] + failed


def _tiled(x: torch.Tensor, shape: tuple[int, int, int, int]) -> torch.Tensor:
    n, _, h, w = shape
    return x.float().repeat(n, 1, -(-h // x.shape[2]), -(-w // x.shape[3]))[:, :, :h, :w].contiguous()


def call_overhead() -> list[Timing]:
    """Milliseconds of the processor per forward and backward call, without a graph, on a small batch."""
    pred, target = (_tiled(x, SMALL) for x in pictures((1, 1, 128, 128), "photo"))
    inputs = Inputs.of(pred, target, torch.float32, "cuda")
    rows = []
    for provider in providers(engines("cuda"), ()):
        step = provider.step(inputs, "both")
        samples = [_processor_seconds(step) for _ in range(5)]
        sample = timing.Sample(tuple(s / CALLS for s in samples[1:]))
        low, middle, high = (sample.ms(p) for p in (20, 50, 80))
        blank = Timing(provider.kernel, provider.name, "call (CPU)", "float32", *SMALL, "photo")
        rows.append(replace(blank, ms_p20=low, ms_p50=middle, ms_p80=high, rounds=len(sample.seconds)))
    return rows


def _processor_seconds(step) -> float:
    # The queue must never fill up, or the processor waits for the GPU.
    total = 0.0
    for _ in range(CALLS // 20):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(20):
            step()
        total += time.perf_counter() - begin
    torch.cuda.synchronize()
    return total


def report(rows: Sequence[Timing], machine: record.Machine, others: float | None) -> str:
    """The measurements as Markdown, with ratios to what Q is compared with."""
    parts = ["# The Triton engine on a GPU\n", record.describe(machine, others) + "\n", _HOW]
    head = ("provider", "ms p50", "p20", "p80", "GB/s", "of copy", "times as fast as plain", "note")
    for key in dict.fromkeys((r.shape, r.dtype, r.mode) for r in rows):
        group = [r for r in rows if (r.shape, r.dtype, r.mode) == key]
        plain = {r.kernel: r.ms_p50 for r in group if r.provider == "plain"}
        lines = []
        for r in group:
            if r.ms_p50 is None:
                lines.append((f"{r.kernel}/{r.provider}", *[""] * 6, r.note))
                continue
            ratio = f"{plain[r.kernel] / r.ms_p50:.2f}" if plain.get(r.kernel) else ""
            rate = f"{r.gbytes_per_s:.0f}" if r.gbytes_per_s is not None else ""
            share = f"{r.share_of_copy:.0%}" if r.share_of_copy is not None else ""
            times = (f"{ms:.4g}" for ms in (r.ms_p50, r.ms_p20, r.ms_p80))
            lines.append((f"{r.kernel}/{r.provider}", *times, rate, share, ratio, r.note))
        parts += [f"## {tables.size(key[0])} {key[1]} {key[2]}\n", tables.table(head, lines)]
    return "\n".join(parts)


_HOW = """\
Each provider is a captured CUDA graph over sets of inputs that together are three times the L2 cache or more;
the graphs are replayed in turn, and times are per set. "call (CPU)" is the processor's time for a forward and
backward call without a graph. GB/s counts the bytes that must move at least: each image read once, the
gradient written once.
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m bench gpu", description=__doc__)
    arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())

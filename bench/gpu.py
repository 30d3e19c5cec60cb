"""Everything that needs a GPU, in one command within ten minutes: hardware tests, benchmark, a training run.

Runs with the python3 at hand, without network and without an environment of its own. Exits with 1 if a test
fails, with 2 without a CUDA device.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from . import gpu_cells, precompile, record
from .gpu_report import report
from .limits import Measured

#: Seconds that each part may take of a run of all three, which with a build of the engines stays below ten
#: minutes; and those of a part that is run alone.
BUDGETS = {"tests": 200.0, "bench": 180.0, "train": 130.0}
ALONE = {"tests": 420.0, "bench": 480.0, "train": 300.0}
#: Tests that take too long are told to end, and killed so many seconds later.
LAST_WORDS = 10.0
#: Of a training run, seconds of steady steps; and the steps of the run whose curve is kept.
TRAIN_SECONDS = 30
CURVE_STEPS = 1500
#: Processes of tests: most of the time goes into compiling kernels, on the processor.
WORKERS = 12

#: Of the benchmark's time, what compiling ahead may take.
PRECOMPILE = 0.4

#: Where tests are marked `gpu`.
GPU_TESTS = (
    "tests/bench/test_gpu.py",
    "tests/cuda",
    "tests/triton",
    "tests/qkernel",
    "tests/model/test_trainer_gpu.py",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_mutually_exclusive_group()
    for part, what in (("tests", "tests"), ("bench", "benchmark of Q"), ("train", "training run")):
        parts.add_argument(
            f"--{part}-only", dest="only", action="store_const", const=part, help=f"the {what} alone"
        )
    parser.add_argument(
        "--seconds", type=float, help="for the part that is run alone (default: what ten minutes allow)"
    )
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder (default: bench/results)")


def run(options: argparse.Namespace) -> int:
    """Test, measure, write CSV and Markdown."""
    if options.seconds and not options.only:
        print("error: --seconds is for one part: --tests-only, --bench-only or --train-only", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("error: torch finds no CUDA device: the GPU tests and benchmark need one", file=sys.stderr)
        return 2
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {sys.version.split()[0]}",
        flush=True,
    )
    parts = (options.only,) if options.only else ("tests", "bench", "train")
    budgets = ALONE if options.only else BUDGETS
    if options.seconds:
        budgets = {options.only: options.seconds}
    passed = "tests" not in parts or run_tests(budgets["tests"])
    if "bench" in parts:
        bench(options.out, time.perf_counter() + budgets["bench"])
    if "train" in parts:
        passed = train(options.out, budgets["train"]) and passed
    return 0 if passed else 1


def train(folder: Path, seconds: float) -> bool:
    """Training speed and a loss curve, in a process of its own, which a time limit can end.

    Returns whether it ended well, or was ended after its speeds were recorded, which come first.
    """
    begin = time.time()
    command = [sys.executable, "-m", "bench", "train", "--device", "cuda", "--out", str(folder)]
    command += ["--seconds", str(TRAIN_SECONDS), "--curve", str(CURVE_STEPS)]
    try:
        return subprocess.run(command, cwd=record.ROOT, timeout=seconds, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        speeds = folder / "train_cuda.csv"
        there = speeds.is_file() and speeds.stat().st_mtime >= begin
        left = "its curve is not recorded" if there else "error: nothing of it is recorded"
        print(f"the training run took more than {seconds:.0f} s: {left}", file=sys.stderr)
        return there


def run_tests(seconds: float) -> bool:
    """Run the tests marked `gpu`, by pytest if there is one."""
    if importlib.util.find_spec("pytest") is None:
        print("error: the tests need pytest: pip install pytest, or --bench-only", file=sys.stderr)
        return False
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *GPU_TESTS]
    # What one module lacks is no reason to leave the others out.
    command += ["--continue-on-collection-errors"]
    if importlib.util.find_spec("xdist") is not None:
        # One test at a time: the long ones follow one another.
        command += ["-n", str(min(WORKERS, os.cpu_count() or 1)), "--maxschedchunk=1"]
    # A group of its own: what its workers have started ends with it, and is not there during the timings.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    tests = subprocess.Popen(command, cwd=record.ROOT, start_new_session=True, env=environment)
    try:
        return tests.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        print(f"error: the tests took more than {seconds:.0f} s", file=sys.stderr)
        tests.send_signal(signal.SIGINT)  # those that failed have been named
        with suppress(subprocess.TimeoutExpired):
            tests.wait(LAST_WORDS)
        return False
    finally:
        with suppress(ProcessLookupError):
            os.killpg(tests.pid, signal.SIGKILL)
        tests.wait()


def bench(folder: Path, end: float) -> None:
    """Measure the cells for which there is time, and write what was measured after each of them."""
    machine = record.machine(gpu_cells.DEVICE)
    begin = time.perf_counter()
    late = precompile.run(gpu_cells.CELLS, begin + PRECOMPILE * (end - begin))
    rows: list[Measured] = []
    for found in gpu_cells.measure(end, late):
        rows += found
        record.write(folder / "gpu.csv", rows, machine)
        text = report(rows, machine)
        (folder / "gpu.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"Written: {folder}/gpu.csv and .md")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m bench gpu", description=__doc__)
    arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())

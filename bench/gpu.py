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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from . import gpu_cells, record
from .gpu_report import report
from .limits import Measured

#: Seconds that tests and benchmark may take together, and of these the tests, which are told to end a little
#: before they are killed. With the training run and a build of the engines it stays below ten minutes.
BUDGET = 360.0
TEST_BUDGET = 190.0
LAST_WORDS = 10.0
TRAIN_BUDGET = 150.0
#: Of these, seconds of steady steps; and the steps of the run whose curve is kept.
TRAIN_SECONDS = 60
CURVE_STEPS = 3000

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
    parts = (options.only,) if options.only else ("tests", "bench", "train")
    passed = "tests" not in parts or run_tests(TEST_BUDGET)
    if "bench" in parts:
        bench(options.out, start + BUDGET)
    if "train" in parts:
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
    machine = record.machine(gpu_cells.DEVICE)
    rows: list[Measured] = []
    for found in gpu_cells.measure(end):
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

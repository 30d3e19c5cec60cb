"""What every measurement is recorded with, and the CSV files it is recorded in."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import os
import subprocess
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import qkernel
from model.device import processor_name
from qkernel.engines import ENGINES, cpp

ROOT = Path(__file__).resolve().parent.parent

Row = typing.TypeVar("Row")

#: Where the records of complete runs are kept, and where all other runs go (ignored by git).
RESULTS = ROOT / "bench" / "results"
SCRATCH = ROOT / "runs" / "bench"

#: Above this share of the machine's processor time taken by others, timings count as disturbed.
BUSY = 0.05


@dataclass(frozen=True)
class Machine:
    """Where, when and with what a run was made: the last columns of every record."""

    device: str
    device_name: str
    cores: int
    threads: int
    simd: str
    torch: str
    qkernel: str
    commit: str
    dirty: bool
    date: str
    load_at_start: float


@dataclass(frozen=True)
class Timing:
    """One row of a benchmark: the columns that all of them share.

    ``others`` is the share of the machine's processor time that other processes took while the row was
    measured, ``first_call_s`` includes compilation, and ``note`` says why a row has no numbers.
    """

    kernel: str
    provider: str
    mode: str
    dtype: str
    n: int
    c: int
    h: int
    w: int
    content: str
    ms_p20: float | None = None
    ms_p50: float | None = None
    ms_p80: float | None = None
    rounds: int = 0
    gbytes_per_s: float | None = None
    share_of_copy: float | None = None
    extra_bytes_forward: int | None = None
    extra_bytes_backward: int | None = None
    first_call_s: float | None = None
    others: float | None = None
    note: str = ""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.n, self.c, self.h, self.w


def machine(device: str) -> Machine:
    """Describe this machine, this checkout and this moment."""
    commit = _git("rev-parse", "--short=12", "HEAD") or os.environ.get("QKERNEL_COMMIT", "none")
    changed = _git("status", "--porcelain", "--", ".", ":!bench/results")
    return Machine(
        device=device,
        device_name=torch.cuda.get_device_name() if device == "cuda" else processor_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        threads=torch.get_num_threads(),
        simd=_simd(),
        torch=torch.__version__,
        qkernel=qkernel.__version__,
        commit=commit,
        # A copy without its history is what whoever names its commit says it is.
        dirty=bool(changed) if changed is not None else "QKERNEL_COMMIT" not in os.environ,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        load_at_start=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    )


def write(path: Path, rows: Sequence, machine: Machine) -> None:
    """Write rows of one dataclass as CSV, the machine beside each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        columns = [f.name for kind in (type(rows[0]), Machine) for f in dataclasses.fields(kind)]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            values = (*dataclasses.astuple(row), *dataclasses.astuple(machine))
            writer.writerow([_text(value) for value in values])


def read(path: Path, kind: type[Row]) -> tuple[list[Row], Machine]:
    """The rows and the machine of a CSV file made by `write`."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return [_parse(line, kind) for line in lines], _parse(lines[0], Machine)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def _parse(line: dict[str, str], kind: type[Row]) -> Row:
    values = {}
    for name, hint in typing.get_type_hints(kind).items():
        base, *optional = typing.get_args(hint) or (hint,)
        text = line[name]
        if optional and text == "":
            values[name] = None
        else:
            values[name] = text == "True" if base is bool else base(text)
    return kind(**values)


def describe(machine: Machine, others: float | None = None) -> str:
    """The machine in one Markdown paragraph, with a warning where the run was disturbed."""
    changes = " with uncommitted changes" if machine.dirty else ""
    text = (
        f"{machine.device_name}, {machine.cores} cores, {machine.threads} threads, {machine.simd}; "
        f"torch {machine.torch}, qkernel {machine.qkernel}, commit {machine.commit}{changes}; {machine.date}."
    )
    if others is not None and others > BUSY:
        text += (
            f"\n\n**The machine was busy**: other processes took {others:.0%} of its processor time "
            f"(load {machine.load_at_start} at the start). These timings are no record."
        )
    return text


class Others:
    """The share of the machine's processor time that other processes take, between two calls."""

    def __init__(self) -> None:
        self._last = self._now()

    def share(self) -> float | None:
        """Since the last call; None where the system does not say."""
        last, self._last = self._last, self._now()
        if last is None or self._last is None:
            return None
        total, busy, own = (new - old for new, old in zip(self._last, last, strict=True))
        return round(min(max((busy - own) / total, 0.0), 1.0), 3) if total > 0 else None

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        except OSError:
            return None
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in fields]
        own = os.times()
        # The eight are user, nice, system, idle, iowait, irq, softirq and steal.
        return sum(ticks), sum(ticks) - ticks[3] - ticks[4], sum(own[:4])


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _simd() -> str:
    if ENGINES["cpp"].missing():
        return f"torch's {torch.backends.cpu.get_cpu_capability()}"
    return cpp.simd()

"""Progress that is seen: a bar with throughput and time left on a terminal, plain lines elsewhere."""

import sys
import time
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from model.processes import leads

__all__ = ["ProgressBar", "say"]

# Seconds between plain lines, so that a log file of an hour's run stays readable.
LINE_EVERY = 10.0


def say(text: str = "") -> None:
    """Print a line now, also into a pipe, above the bar while one is shown; the first process does."""
    if leads():
        print(text, flush=True)


class ProgressBar:
    """Shows how far a job is; a context manager.

    Args:
        title: what is done.
        total: steps of the job.
        unit: what the throughput counts, e.g. crops.
        done: steps that an earlier run has done.
        line_every: seconds between plain lines.
    """

    def __init__(
        self, title: str, total: int, unit: str, done: int = 0, line_every: float = LINE_EVERY
    ) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.line_every = line_every
        self._first, self._said, self._amount, self._detail = done, done, 0.0, ""
        self._bar: Progress | None = None

    def __enter__(self) -> "ProgressBar":
        self._started = self._spoken = time.monotonic()
        if sys.stdout.isatty() and leads():
            self._bar = Progress(
                # Names may hold what rich takes for markup.
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}", markup=False),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, status="")
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif failed is None and self._said not in (self._first, self.done):
            # The last line belongs to the lines before it; a job too short for any says nothing.
            self._line()

    def advance(self, steps: int = 1, amount: float = 1, detail: str = "") -> None:
        """Count steps done and the amount of `unit` they handled; `detail` replaces the one shown before."""
        self.done += steps
        self._amount += amount
        self._detail = detail or self._detail
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, status=self._status())
        elif time.monotonic() - self._spoken >= self.line_every and self.done <= self.total:
            self._line()

    def _line(self) -> None:
        self._spoken, self._said = time.monotonic(), self.done
        say(f"{self.title}  {self.done}/{self.total}  {self._status()}")

    def _status(self) -> str:
        elapsed = time.monotonic() - self._started
        rate = self._amount / elapsed if elapsed else 0.0
        parts = [f"{rate:.3g} {self.unit}/s" if rate < 100 else f"{rate:.0f} {self.unit}/s"]
        fresh = self.done - self._first
        if fresh and self.done < self.total:
            left = timedelta(seconds=round(elapsed / fresh * (self.total - self.done)))
            parts.append(f"{left} left")
        elif fresh:
            parts.append(f"took {timedelta(seconds=round(elapsed))}")
        return "  ".join([*parts, self._detail]).rstrip()

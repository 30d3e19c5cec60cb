"""Interleaved timing: every candidate runs once per round, in an order that favours none."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from . import cuda

Step = Callable[[], object]
#: The seconds of one run of a step.
Clock = Callable[[Step], float]


@dataclass(frozen=True)
class Sample:
    """What the runs of one candidate took, in seconds."""

    seconds: tuple[float, ...]

    def ms(self, percentile: float) -> float:
        return float(np.percentile(self.seconds, percentile)) * 1e3


def order(count: int, round_: int) -> list[int]:
    """The order of ``count`` candidates in a round: a Williams design.

    What ran just before decides what is in the caches. Over ``count`` rounds (twice as many if it is odd)
    each candidate comes in every place, and right after each other one equally often.
    """
    zigzag = [i // 2 if i % 2 == 0 else count - 1 - i // 2 for i in range(count)]
    row = [(place + round_) % count for place in zigzag]
    return row[::-1] if count % 2 and (round_ // count) % 2 else row


def cpu_clock(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


#: Cycles of the GPU, half a millisecond or so, in which the processor launches what is timed.
LAUNCH_CYCLES = 1_000_000


def cuda_clock(step: Step) -> float:
    cuda.clean_cache()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    # The GPU is kept busy until the step has been launched, which would count otherwise.
    torch.cuda._sleep(LAUNCH_CYCLES)
    start.record()
    step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def interleave(
    steps: Sequence[Step],
    budget: float,
    *,
    clock: Clock = cpu_clock,
    least: int = 5,
    most: int = 200,
    patience: float = 3.0,
) -> list[Sample]:
    """Time all steps together, round by round, for about ``budget`` seconds.

    One round is thrown away first; steps whose first call is special (compilation) are called before. At
    least ``least`` rounds are made, but no more than ``patience`` budgets are spent on reaching them (3 in
    any case), and at most ``most``.
    """
    samples: list[list[float]] = [[] for _ in steps]
    # A garbage collection would land in whichever step happens to run.
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for index in order(len(steps), 0):
            clock(steps[index])
        start = time.perf_counter()
        for round_ in range(most):
            spent = time.perf_counter() - start
            if spent > budget and (round_ >= least or (spent > patience * budget and round_ >= 3)):
                break
            for index in order(len(steps), round_):
                samples[index].append(clock(steps[index]))
    finally:
        if collecting:
            gc.enable()
    return [Sample(tuple(seconds)) for seconds in samples]


def repeated(step: Step, times: int) -> Step:
    """A step that makes many calls: for calls shorter than the clock is fine."""

    def loop() -> None:
        for _ in range(times):
            step()

    return loop

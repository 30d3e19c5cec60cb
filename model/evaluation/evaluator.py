"""Running methods over pairs and measuring what they give."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.classical.method import Knows
from model.errors import UserError
from model.evaluation.cache import ResultCache
from model.evaluation.methods import Identity, Method
from model.evaluation.metrics import psnr, quantised, sharpness_qs, ssim
from model.evaluation.perceptual import Lpips
from model.evaluation.protocol import Pair
from model.progress import ProgressBar

__all__ = ["LONG", "METRICS", "Failure", "Measurement", "evaluate"]

METRICS = ("psnr", "ssim", "q", "lpips", "seconds")

# Seconds from which on a first run counts: what it pays for choosing kernels and for memory is then nothing,
# and RED's 1500 denoisings are not made twice.
LONG = 5.0


@dataclass(frozen=True)
class Measurement:
    """One method on one picture."""

    method: str
    image: str
    psnr: float
    ssim: float
    q: float
    lpips: float | None
    """None where LPIPS cannot be measured."""
    seconds: float | None
    """Time of restoring alone, after one run that is not counted (unless it is LONG); 0 for the blurred
    picture itself, None for results that were made elsewhere."""
    restored: NDArray[np.uint8]


@dataclass(frozen=True)
class Failure:
    """One method that gave nothing for one picture."""

    method: str
    image: str
    reason: str


def evaluate(
    methods: Sequence[Method],
    pairs: Sequence[Pair],
    q_definition: str,
    lpips: Lpips | None,
    *,
    output: Literal["round", "truncate"] = "round",
    batch: int = 1,
    repeats: int = 1,
    device: torch.device | str = "cpu",
    cache: ResultCache | None = None,
    on_failure: Callable[[Failure], None] | None = None,
) -> list[Measurement]:
    """Measure each method on each pair.

    Args:
        methods: their order is kept.
        pairs: sharp and blurred pictures.
        q_definition: definition of Q.
        lpips: the perceptual metric, or None to leave it out.
        output: how results become 8 bits.
        batch: pictures of one size restored at once; their time is shared out evenly.
        repeats: runs that the time is the median of.
        device: where Q is computed.
        cache: where results are kept and looked up; None restores everything.
        on_failure: told of each method that fails on a picture, and the others go on; without it the error is
            raised.

    Returns:
        One measurement for each method and pair that did not fail, methods outermost.
    """
    results = []
    with ProgressBar("measuring", len(methods) * len(pairs), "pictures") as bar:
        for method in methods:
            runner = _Runner(method, output, repeats, cache, on_failure)
            for group in _groups(pairs, 1 if isinstance(method, Identity) else batch):
                outcomes = runner.run(group)
                there = [(pair, *one) for pair, one in zip(group, outcomes, strict=True) if one is not None]
                values = sharpness_qs([picture for _, picture, _ in there], q_definition, device)
                for (pair, picture, seconds), q in zip(there, values, strict=True):
                    results.append(
                        Measurement(
                            method=method.name,
                            image=pair.name,
                            psnr=psnr(pair.sharp, picture),
                            ssim=ssim(pair.sharp, picture),
                            q=q,
                            lpips=lpips(pair.sharp, picture) if lpips else None,
                            seconds=seconds,
                            restored=picture,
                        )
                    )
                bar.advance(len(group), len(group), detail=method.name)
    return results


def _groups(pairs: Sequence[Pair], batch: int) -> Iterator[list[Pair]]:
    """Neighbours of one size, at most `batch` of them at once."""
    group: list[Pair] = []
    for pair in pairs:
        if group and (len(group) == batch or pair.sharp.shape != group[0].sharp.shape):
            yield group
            group = []
        group.append(pair)
    if group:
        yield group


_Outcome = tuple[NDArray[np.uint8], float | None]


class _Runner:
    """One method: its warming up, its time, its cache and its failures."""

    def __init__(
        self,
        method: Method,
        output: Literal["round", "truncate"],
        repeats: int,
        cache: ResultCache | None,
        on_failure: Callable[[Failure], None] | None,
    ) -> None:
        self.method, self.output, self.repeats = method, output, repeats
        self.cache, self.on_failure = cache, on_failure
        self._warmed: set[tuple[int, ...]] = set()

    def run(self, pairs: Sequence[Pair]) -> list[_Outcome | None]:
        """The picture and its seconds for each pair of one size; None where the method failed."""
        keys = [self.cache.key(self.method, pair.observed) if self.cache else None for pair in pairs]
        found = [self.cache.load(key) if self.cache else None for key in keys]
        missing = [place for place, outcome in enumerate(found) if outcome is None]
        outcomes: list[_Outcome | None] = list(found)
        for place, outcome in zip(missing, self._restored([pairs[i] for i in missing]), strict=True):
            outcomes[place] = outcome
            if self.cache and outcome is not None and outcome[1] is not None:
                self.cache.save(keys[place], outcome[0], outcome[1])
        return outcomes

    def _restored(self, pairs: Sequence[Pair]) -> list[_Outcome | None]:
        if not pairs:
            return []
        try:
            blurred = torch.from_numpy(np.stack([pair.observed for pair in pairs]))[:, None]
            restored, seconds = self._timed(blurred)
            if len(pairs) == 1:
                # Of a batch, whichever picture is bad is found by restoring them one by one.
                _check(restored, blurred)
            elif restored.shape != blurred.shape or not restored.isfinite().all():
                raise UserError("one of the pictures was not restored")
            return [(quantised(picture[None], self.output), seconds) for picture in restored]
        except Exception as error:
            if self.on_failure is None and len(pairs) == 1:
                raise
            if len(pairs) > 1:
                return [outcome for pair in pairs for outcome in self._restored([pair])]
            reason = " ".join(str(error).split()) or type(error).__name__
            assert self.on_failure is not None
            self.on_failure(Failure(self.method.name, pairs[0].name, reason))
            return [None]

    def _timed(self, blurred: Tensor) -> tuple[Tensor, float | None]:
        """The result on the CPU, and seconds for each picture."""
        if self.method.knows == Knows.ANSWER:
            return self.method.restore(blurred), None
        if isinstance(self.method, Identity):
            return self.method.restore(blurred), 0.0
        # The first run at a size pays for choosing kernels and for memory.
        if tuple(blurred.shape) not in self._warmed:
            self._warmed.add(tuple(blurred.shape))
            restored, seconds = self._once(blurred)
            if seconds >= LONG and self.repeats == 1:
                return restored, seconds / len(blurred)
        runs = [self._once(blurred) for _ in range(self.repeats)]
        return runs[-1][0], statistics.median(seconds for _, seconds in runs) / len(blurred)

    def _once(self, blurred: Tensor) -> tuple[Tensor, float]:
        begun = time.perf_counter()
        # The copy to the CPU waits for the device.
        restored = self.method.restore(blurred).cpu()
        return restored, time.perf_counter() - begun


def _check(restored: Tensor, blurred: Tensor) -> None:
    if restored.shape != blurred.shape:
        raise UserError(f"the result has shape {tuple(restored.shape)}, the picture {tuple(blurred.shape)}")
    bad = int((~restored.isfinite()).sum())
    if bad:
        raise UserError(f"{bad} of {restored.numel()} pixels are not finite: it diverged")

"""Q as a chooser: the parameter whose result is sharpest where the picture that was given has structure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from model.evaluation.evaluator import Measurement
from model.evaluation.protocol import Pair
from qkernel import q_map

__all__ = ["Choice", "Trial", "anisotropic_set", "choose", "q_on_set"]

# A significance level so close to 1 that the threshold on coherence is about 1e-6: every patch counts.
_EVERY_PATCH = 1 - 1e-10


def anisotropic_set(picture: NDArray[np.float64], definition: str = "zhu2010") -> NDArray[np.bool_]:
    """Which patches of a picture, H x W in [0, 1], have a dominant direction: patch rows x patch columns."""
    return q_map(torch.from_numpy(picture), definition=definition).q.numpy() > 0


def q_on_set(picture: NDArray[np.uint8], chosen: NDArray[np.bool_], definition: str = "zhu2010") -> float:
    """Q of a picture over a fixed set of patches: the sum of their values by the number of all patches.

    Source: Zhu and Milanfar, IEEE TIP 19(12), 2010, whose function MetricQ takes the set as an argument.
    """
    pixels = torch.from_numpy(picture.astype(np.float64) / 255)
    values = q_map(pixels, definition=definition, delta=_EVERY_PATCH).q.numpy()
    return float(values[chosen].sum() / values.size)


@dataclass(frozen=True)
class Trial:
    """One candidate: means over the pictures."""

    name: str
    q: float
    """Over the patches that are anisotropic in what was given."""
    psnr: float
    """In dB; of no meaning where the sharp picture is not known."""
    chosen: int
    """Pictures for which its Q is the largest of all."""
    best: int
    """Pictures for which its PSNR is the largest of all."""


@dataclass(frozen=True)
class Choice:
    """What Q chooses among candidates, and what PSNR would have."""

    trials: Sequence[Trial]
    by_q: Trial
    by_psnr: Trial
    each_by_q: float
    """Mean PSNR if Q chooses for each picture by itself."""
    each_by_psnr: float
    """Mean PSNR if PSNR does: nothing can be better."""


def choose(measurements: Sequence[Measurement], pairs: Sequence[Pair], definition: str = "zhu2010") -> Choice:
    """Choose among methods the one whose results have the largest Q over a set of patches that is fixed.

    The set is that of the picture as it was given. Of the result's own anisotropic patches there are more the
    more it is smoothed, which would favour smoothing.

    Args:
        measurements: of every candidate on every picture.
        pairs: the pictures.
        definition: of Q; "zhu2010" is the publication's.

    Returns:
        The candidates in order, and the choices; the first of equals.

    Raises:
        ValueError: if no candidate has been measured on every picture.

    Source: Zhu and Milanfar, IEEE TIP 19(12), 2010, section V.
    """
    sets = {pair.name: anisotropic_set(pair.observed, definition) for pair in pairs}
    scores: dict[str, dict[str, tuple[float, float]]] = {}
    for one in measurements:
        q = q_on_set(one.restored, sets[one.image], definition)
        scores.setdefault(one.method, {})[one.image] = (q, one.psnr)
    complete = {name: score for name, score in scores.items() if len(score) == len(pairs)}
    if not complete:
        raise ValueError("no candidate restored every picture")
    by_q, by_psnr = (_winners(complete, pairs, place) for place in (0, 1))
    trials = [
        Trial(
            name,
            fmean(q for q, _ in score.values()),
            fmean(psnr for _, psnr in score.values()),
            chosen=sum(winner == name for winner in by_q.values()),
            best=sum(winner == name for winner in by_psnr.values()),
        )
        for name, score in complete.items()
    ]
    return Choice(
        trials,
        max(trials, key=lambda trial: trial.q),
        max(trials, key=lambda trial: trial.psnr),
        *(fmean(complete[name][image][1] for image, name in winners.items()) for winners in (by_q, by_psnr)),
    )


def _winners(
    scores: Mapping[str, Mapping[str, tuple[float, float]]], pairs: Sequence[Pair], place: int
) -> dict[str, str]:
    """Picture -> the candidate with the largest Q (place 0) or PSNR (place 1)."""
    return {pair.name: max(scores, key=lambda name: scores[name][pair.name][place]) for pair in pairs}

"""How far a mean over pictures would move with other pictures."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["confidence_interval"]

_RESAMPLES = 5000
# Resamples drawn at a time, so that 500 pictures take megabytes and not more.
_AT_ONCE = 500


def confidence_interval(
    values: Sequence[float], level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """The interval that holds `level` of the means of resampled pictures (percentile bootstrap).

    Args:
        values: one per picture.
        level: between 0 and 1.
        seed: of the resampling; the same values give the same interval.

    Returns:
        Its ends; None for fewer than two values, or where one is not finite.

    Source: Efron, Annals of Statistics 7 (1979).
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    sample, random = np.asarray(values, dtype=np.float64), np.random.default_rng(seed)
    means = np.concatenate(
        [
            sample[random.integers(len(sample), size=(_AT_ONCE, len(sample)))].mean(axis=1)
            for _ in range(_RESAMPLES // _AT_ONCE)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

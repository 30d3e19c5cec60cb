"""One method against another, picture by picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from model.evaluation.bootstrap import confidence_interval
from model.evaluation.evaluator import Measurement
from model.evaluation.table import DIGITS

__all__ = ["Difference", "against"]


@dataclass(frozen=True)
class Difference:
    """What a method changes against the control: the mean over the pictures that both restored."""

    mean: float
    interval: tuple[float, float] | None
    """95 % confidence interval of the mean; None for fewer than two pictures."""

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    def shown(self, metric: str) -> str:
        """As tables show it."""
        digits = DIGITS[metric]
        mean = f"{self.mean:+.{digits}f}"
        if self.interval is None:
            return mean
        low, high = self.interval
        return f"{mean} ({low:+.{digits}f} ... {high:+.{digits}f})"


def against(
    measurements: Sequence[Measurement], control: str, method: str, metrics: Sequence[str]
) -> dict[str, Difference]:
    """The differences of a method to a control.

    Pictures differ from each other far more than methods do; in differences between two methods on the same
    picture that cancels out.

    Args:
        measurements: of both methods, and of any others.
        control, method: names of methods.
        metrics: which to compare; one that is missing or not finite for a picture is left out.
    """
    before, after = (
        {one.image: one for one in measurements if one.method == name} for name in (control, method)
    )
    found = {}
    for metric in metrics:
        pairs = [
            (getattr(before[image], metric), getattr(after[image], metric))
            for image in before
            if image in after
        ]
        if not pairs or any(None in pair or not all(map(math.isfinite, pair)) for pair in pairs):
            continue
        gains = [b - a for a, b in pairs]
        found[metric] = Difference(fmean(gains), confidence_interval(gains))
    return found

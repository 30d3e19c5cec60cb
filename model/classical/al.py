"""aL: the approximate Landweber iteration, which only calls the blur."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from model.classical.blur import BlackBox, rotated
from model.classical.method import Knows, at_least

__all__ = ["ApproximateLandweber"]


@dataclass(frozen=True)
class ApproximateLandweber:
    """x <- x + R((F(x + h) - F(x - h)) / 2) with h = R(y - F(x)) and R a turn by 180 degrees.

    For a linear F the step is H'(y - Hx), Landweber's, found by three calls of F alone. For a circular blur
    with a symmetric kernel of transfer function H, n steps have the closed form X (1 - (1 - H^2)^n (1 - H)).
    The MMSP 2024 paper calls it accelerated; nothing in it is.

    Source: Belyaev and Fayolle, Signal Processing: Image Communication 108 (2022) 116833.
    """

    knows: ClassVar[Knows] = Knows.OPERATOR

    iterations: int = 250
    """Steps of length 1; the paper's table has 250."""

    def __post_init__(self) -> None:
        at_least(0, "iterations", self.iterations)

    def __call__(self, blurred: Tensor, blur: BlackBox) -> Tensor:
        """Restore N x 1 x H x W in [0, 1], in its type; the result is not clipped."""
        x = blurred
        for _ in range(self.iterations):
            x = x + _step(x, blurred, blur)
        return x


def _step(x: Tensor, blurred: Tensor, blur: BlackBox) -> Tensor:
    residual = rotated(blurred - blur(x))
    return rotated(blur(x + residual) - blur(x - residual)) / 2

"""mRL: a Richardson-Lucy iteration without derivatives, which only calls the blur."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from model.classical.blur import BlackBox, adjoint
from model.classical.method import Knows, at_least

__all__ = ["ModifiedRichardsonLucy"]

# Keeps ratios finite where a picture is black.
_FLOOR = 1e-16


@dataclass(frozen=True)
class ModifiedRichardsonLucy:
    """Two multiplications a step, with F' = R F R and R a turn by 180 degrees.

    x <- x / F'(F(x) / y), then x <- x F'(y / F(x)). Ratios exceed 1, so a blur that clips, as that of the
    published results does, gives another picture (kodim19: 31.57 dB instead of 32.46).

    Source: Belyaev and Fayolle, Signal Processing: Image Communication 108 (2022) 116833.
    """

    knows: ClassVar[Knows] = Knows.OPERATOR

    iterations: int = 250
    """Steps of two multiplications each; the paper's table has 250."""

    def __post_init__(self) -> None:
        at_least(0, "iterations", self.iterations)

    def __call__(self, blurred: Tensor, blur: BlackBox) -> Tensor:
        """Restore N x 1 x H x W in [0, 1], in its type; the result is not clipped."""
        x = blurred
        for _ in range(self.iterations):
            x = x / (adjoint(blur, blur(x) / (blurred.abs() + _FLOOR)).abs() + _FLOOR)
            x = x * adjoint(blur, blurred / (blur(x).abs() + _FLOOR))
        return x

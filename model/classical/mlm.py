"""mLM: a modified Levenberg-Marquardt iteration in the Fourier domain, which only calls the blur."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from model.classical.blur import BlackBox
from model.classical.method import Knows, at_least

__all__ = ["ModifiedLevenbergMarquardt", "noise_level"]

# Keeps a spectral ratio finite where the picture holds nothing of a frequency.
_FLOOR = 1e-16


@dataclass(frozen=True)
class ModifiedLevenbergMarquardt:
    """x <- x + Re IDFT[conj(H) (y - F(x))^ / (|H|^2 + a)] with H = F(x)^ / x^, estimated anew at each step.

    a is `damping` times the noise-to-signal ratio that `noise_level` sees in y. The method takes the blur for
    a circular one: where its border is another or the picture was rounded to 8 bits, it diverges (kodim19:
    23.7 dB, below the blurred picture's 24.5, against 40.9 for a circular, unrounded one). For a circular
    blur, n steps have the closed form X (1 - (a / (H^2 + a))^n (1 - H)).

    Divides by small numbers: give it float64.

    Source: Belyaev and Fayolle, Signal Processing: Image Communication 108 (2022) 116833.
    """

    knows: ClassVar[Knows] = Knows.OPERATOR

    iterations: int = 100
    """Steps; the paper's table has 100."""
    damping: float = 100.0
    """a in units of the noise-to-signal ratio."""

    def __post_init__(self) -> None:
        at_least(0, "iterations", self.iterations)
        at_least(0, "damping", self.damping)

    def __call__(self, blurred: Tensor, blur: BlackBox) -> Tensor:
        """Restore N x 1 x H x W in [0, 1], in its type; the result is not clipped."""
        variance = blurred.var(dim=(-2, -1), keepdim=True, correction=0)
        # A constant picture has nothing to restore: an infinite a takes no step.
        damping = torch.where(variance > 0, self.damping * noise_level(blurred) ** 2 / variance, torch.inf)
        x = blurred
        for _ in range(self.iterations):
            seen = blur(x)
            response = torch.fft.rfft2(seen) / (torch.fft.rfft2(x) + _FLOOR)
            residual = torch.fft.rfft2(blurred - seen)
            step = response.conj() * residual / (response.abs() ** 2 + damping)
            x = x + torch.fft.irfft2(step, s=x.shape[-2:])
        return x


def noise_level(image: Tensor) -> Tensor:
    """Immerkaer's fast estimate of the standard deviation of noise: N x 1 x H x W -> N x 1 x 1 x 1.

    The picture is continued with zeros by two pixels, as the published code of mLM does, so that the border
    counts as noise and the estimate is above 0 even for a picture without any.

    Source: Immerkaer, Computer Vision and Image Understanding 64 (1996) 300-302.
    """
    mask = image.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    height, width = image.shape[-2:]
    total = F.conv2d(image, mask[None, None], padding=2).abs().sum(dim=(-2, -1), keepdim=True)
    return math.sqrt(math.pi / 2) / (6 * (width - 2) * (height - 2)) * total

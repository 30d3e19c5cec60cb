"""The blur as classical methods are given it: an operator on floating-point pictures, nothing rounded."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BlackBox", "Border", "KernelBlur", "adjoint", "rotated"]

BlackBox = Callable[[Tensor], Tensor]
"""Takes and returns N x 1 x H x W; a method that is told only this cannot look inside."""

Border = Literal["circular", "reflect"]


class KernelBlur:
    """Convolution of each picture with one kernel.

    Args:
        kernel: rows x columns, both odd, float.
        border: "circular" continues the picture periodically, "reflect" mirrors it without repeating the edge
            pixel, as the 8-bit blur of the paper's networks does.
        clip: limit the result to [0, 1]. The demonstration of Belyaev and Fayolle does, by way of a noise
            function with noise 0, and mRL's published results depend on it: its ratios exceed 1.

    Raises:
        ValueError: if the kernel has an even side, or is not a matrix.
    """

    def __init__(self, kernel: Tensor, border: Border = "circular", clip: bool = False) -> None:
        if kernel.dim() != 2 or not all(side % 2 for side in kernel.shape):
            raise ValueError(f"a blur kernel must be a matrix with odd sides, got {tuple(kernel.shape)}")
        self.kernel, self.border, self.clip = kernel.to(torch.float64), border, clip
        self._is_box = bool((self.kernel == self.kernel[0, 0]).all())

    @classmethod
    def box(cls, size: int, border: Border = "circular", clip: bool = False) -> "KernelBlur":
        """The mean over a size x size box, size odd."""
        return cls(torch.full((size, size), 1 / size**2, dtype=torch.float64), border, clip)

    def __call__(self, image: Tensor) -> Tensor:
        """Blur N x 1 x H x W in its own floating-point type.

        Raises:
            ValueError: if the picture is too small to be continued by half a kernel.
        """
        rows, columns = (side // 2 for side in self.kernel.shape)
        # A mirrored border does not hold the edge pixel itself, so it needs one pixel more.
        needed = (rows + (self.border == "reflect"), columns + (self.border == "reflect"))
        if image.shape[-2] < needed[0] or image.shape[-1] < needed[1]:
            raise ValueError(
                f"a kernel of {tuple(self.kernel.shape)} needs a larger picture than {tuple(image.shape)}"
            )
        padded = F.pad(image, (columns, columns, rows, rows), mode=self.border)
        result = self._slide(padded, self.kernel.flip(0, 1))
        return result.clamp(0, 1) if self.clip else result

    def adjoint(self, image: Tensor) -> Tensor:
        """The exact adjoint H'x of the blur without its clipping, for either border."""
        rows, columns = (side // 2 for side in self.kernel.shape)
        spread = self._slide(F.pad(image, (2 * columns, 2 * columns, 2 * rows, 2 * rows)), self.kernel)
        return _folded(_folded(spread, rows, -2, self.border), columns, -1, self.border)

    def transfer(self, height: int, width: int, device: torch.device) -> Tensor:
        """What a circular blur multiplies `rfft2` of a picture by: height x (width // 2 + 1), complex."""
        rows, columns = (
            (torch.arange(side) - side // 2) % size
            for side, size in zip(self.kernel.shape, (height, width), strict=True)
        )
        centred = torch.zeros(height, width, dtype=torch.float64)
        # A kernel larger than the picture wraps round it, so values add up.
        centred.index_put_((rows[:, None], columns[None]), self.kernel.cpu(), accumulate=True)
        return torch.fft.rfft2(centred.to(device))

    def largest_gain(self, like: Tensor) -> float:
        """An upper bound of |Hx| / |x| for pictures of this size, exactly 1 for a circular mean.

        It is the root of the largest sum of a row times that of a column of the matrix H.
        """
        weights = KernelBlur(self.kernel.abs(), self.border)
        ones = torch.ones_like(like[:1])
        return float((weights(ones).max() * weights.adjoint(ones).max()).sqrt())

    def unclipped(self) -> "KernelBlur":
        """The same blur without clipping: linear."""
        return KernelBlur(self.kernel, self.border)

    def _slide(self, padded: Tensor, weights: Tensor) -> Tensor:
        if self._is_box:
            # Two narrow means are several times faster than a convolution, above all in float64.
            rows, columns = weights.shape
            means = F.avg_pool2d(F.avg_pool2d(padded, (rows, 1), stride=1), (1, columns), stride=1)
            return means * (weights[0, 0].item() * rows * columns)
        return F.conv2d(padded, weights.to(padded)[None, None])


def _folded(spread: Tensor, margin: int, dim: int, border: Border) -> Tensor:
    """The adjoint of continuing a picture by `margin` pixels at both ends of one dimension."""
    if margin == 0:
        return spread
    size = spread.shape[dim] - 2 * margin
    inside = spread.narrow(dim, margin, size).clone()
    before, after = spread.narrow(dim, 0, margin), spread.narrow(dim, margin + size, margin)
    if border == "circular":
        inside.narrow(dim, size - margin, margin).add_(before)
        inside.narrow(dim, 0, margin).add_(after)
    else:
        inside.narrow(dim, 1, margin).add_(before.flip(dim))
        inside.narrow(dim, size - margin - 1, margin).add_(after.flip(dim))
    return inside


def rotated(image: Tensor) -> Tensor:
    """The picture turned by 180 degrees."""
    return image.flip(-2, -1)


def adjoint(blur: BlackBox, image: Tensor) -> Tensor:
    """Blur a picture with the kernel turned by 180 degrees, knowing nothing but the blur.

    This is the adjoint where the blur is a convolution with circular border; at other borders it is the same
    kernel turned, which is what black-box methods make do with.

    Source: Belyaev and Fayolle, Signal Processing: Image Communication 108 (2022) 116833.
    """
    return rotated(blur(rotated(image)))

"""A blur that is known: its transfer function, and images put through it or its regularised inverse."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.border import repeat_border
from model.networks.image import UnfitImage

__all__ = ["KnownBlur"]

# How far from 1 the sum of a kernel may be: what is lost in a file with few digits.
BRIGHTNESS_TOLERANCE = 1e-3


class KnownBlur(nn.Module):
    """The blur A, a convolution with transfer function H, and the Wiener filter A+ that nearly inverts it.

    A+ multiplies by conj(H) / (|H|^2 + eps). Images are not periodic, so before the Fourier transform the
    mean is taken off, the border repeated `taper` pixels outwards and faded to zero on the way; the mean is
    put back unchanged. With `taper` 0 the operators are exactly circular.

    Source: S. López-Tapia et al., ICIP 2023; eps, taper and the way of fading are its public code's.

    Args:
        blur: side of a box, odd, or the rows of a kernel: at most 2 taper + 1 (taper > 0) on a side, sum 1.
            Its centre is at half its sides, rounded down.
        eps: regularisation. The gain of A+ is at most 1 / (2 sqrt(eps)).
        taper: pixels over which the border is faded.
    """

    kernel: Tensor

    def __init__(self, blur: int | Sequence[Sequence[float]] = 5, eps: float = 0.01, taper: int = 64) -> None:
        super().__init__()
        if eps < 0 or taper < 0:
            raise ValueError(f"eps and taper must not be negative, got {eps} and {taper}")
        self.eps, self.taper = eps, taper
        # Follows the device but is no weight: it is an argument, which may change while the weights stay.
        self.register_buffer("kernel", _kernel(blur), persistent=False)
        if taper and max(self.kernel.shape) > 2 * taper + 1:
            raise ValueError(
                f"a kernel of {tuple(self.kernel.shape)} is too large for a border of {taper} pixels"
            )

    def transfer(self, image: Tensor) -> Tensor:
        """H for images of this size: complex, one half of the plane as `rfft2` has it.

        Raises:
            UnfitImage: if the image, with its border, is smaller than the kernel.
        """
        height, width = (side + 2 * self.taper for side in image.shape[-2:])
        rows, columns = self.kernel.shape
        if rows > height or columns > width:
            raise UnfitImage(
                f"a picture of {width} x {height} pixels, with its border, is smaller than the kernel of the "
                f"blur, {columns} x {rows}"
            )
        kernel = F.pad(self.kernel.to(image.dtype), (0, width - columns, 0, height - rows))
        return torch.fft.rfft2(kernel.roll((-(rows // 2), -(columns // 2)), (0, 1)))

    def blur(self, image: Tensor, transfer: Tensor) -> Tensor:
        """A image. N x C x H x W in float32 or float64, as for the others."""
        return self._filtered(image, transfer)

    def invert(self, image: Tensor, transfer: Tensor) -> Tensor:
        """A+ image."""
        return self._filtered(image, transfer.conj() / (_power(transfer) + self.eps))

    def project(self, image: Tensor, transfer: Tensor) -> Tensor:
        """A+ A image: what of an image can be seen through the blur."""
        power = _power(transfer)
        return self._filtered(image, power / (power + self.eps))

    def _filtered(self, image: Tensor, gain: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        taper = self.taper
        mean = image.mean((-2, -1), keepdim=True)
        x = image - mean
        if taper:
            x = repeat_border(repeat_border(x, -2, taper, taper), -1, taper, taper)
            x = x * self._fade(height, x)[:, None] * self._fade(width, x)
        size = x.shape[-2:]
        x = torch.fft.irfft2(torch.fft.rfft2(x) * gain, s=size)
        return x[..., taper : taper + height, taper : taper + width] + mean

    def _fade(self, length: int, like: Tensor) -> Tensor:
        # 0 at the outermost pixel and 1 at the image's first, so that the periodic seam is at zero.
        ramp = torch.arange(self.taper, dtype=like.dtype, device=like.device) / self.taper
        return torch.cat([ramp, ramp.new_ones(length), ramp.flip(0)])


def _power(transfer: Tensor) -> Tensor:
    return transfer.real.square() + transfer.imag.square()


def _kernel(blur: int | Sequence[Sequence[float]]) -> Tensor:
    if isinstance(blur, int):
        if blur < 1 or blur % 2 == 0:
            raise ValueError(f"the box must have an odd, positive size, got {blur}")
        return torch.full((blur, blur), 1 / blur**2)
    try:
        kernel = torch.tensor(blur, dtype=torch.float32)
    except (TypeError, ValueError):
        raise ValueError(
            f"blur must be the side of a box or the rows of a kernel, all equally long, got {blur!r}"
        ) from None
    if kernel.ndim != 2 or not kernel.numel():
        raise ValueError(f"a kernel has rows and columns, got shape {tuple(kernel.shape)}")
    total = float(kernel.sum())
    if not abs(total - 1) <= BRIGHTNESS_TOLERANCE:
        raise ValueError(f"a kernel must sum to 1, got {total:g}; divide it by its sum")
    return kernel

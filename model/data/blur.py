"""The 8-bit box blur of the paper's synthetic set, in exact arithmetic on any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["box_blur", "box_sums"]


def box_blur(image: Tensor, size: int = 5) -> Tensor:
    """Mean over a size x size box, border mirrored without repeating the edge pixel, rounded to uint8.

    The same numbers as OpenCV's `blur` on 8-bit images, without it. The box holds an odd number of pixels, so
    a mean never lies half-way between two integers and every rule of rounding agrees: floor((sum + (n - 1) /
    2) / n). Sums stay far below 2^24 and a quotient that is not whole is at least 1 / n away from one, so
    float32 is exact.

    Args:
        image: N x C x H x W, uint8, both sides larger than size // 2.
        size: side of the box, odd; the paper's is 5.

    Returns:
        uint8, of the same shape.

    Raises:
        TypeError: if `image` is not uint8.
        ValueError: if `size` is even or not positive, or the image too small to be mirrored.

    Source: MMSP 2024, section IV; bit-exact with its published crops.
    """
    if image.dtype != torch.uint8:
        raise TypeError(f"box_blur takes uint8 images, got {image.dtype}")
    pixels = size * size
    return torch.floor((box_sums(image, size) + (pixels - 1) // 2) / pixels).to(torch.uint8)


def box_sums(image: Tensor, size: int) -> Tensor:
    """The sums over the boxes of `box_blur`: whole numbers in float32, below 2^24 and so exact in any order.

    Raises:
        ValueError: as `box_blur`.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"the box must have an odd, positive size, got {size}")
    radius = size // 2
    if min(image.shape[-2:]) <= radius:
        raise ValueError(
            f"a box of {size} needs an image larger than {radius} pixels, got {tuple(image.shape)}"
        )
    padded = F.pad(image.to(torch.float32), (radius, radius, radius, radius), mode="reflect")
    rows = sum(padded[..., :, shift : shift + image.shape[-1]] for shift in range(size))
    return sum(rows[..., shift : shift + image.shape[-2], :] for shift in range(size))

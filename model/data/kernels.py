"""Blur kernels in whole numbers: the box, a lens out of focus, a Gaussian."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data.constants import constant
from model.errors import UserError

__all__ = [
    "WEIGHT_SUM",
    "Kernel",
    "blur_in_words",
    "blur_kernel",
    "blur_kernels",
    "fixed_kernel",
    "kernel_reach",
    "parse_blur",
]

# Weights of a kernel are whole numbers of this sum: with 8-bit pixels every partial sum stays below 2^24, so
# float32 adds them exactly, in any order, on any device.
WEIGHT_SUM = 1 << 15
LARGEST_RADIUS = 31
# Points across a pixel, in each direction, at which a disc is asked how much of the pixel it covers.
COVERAGE = 16


def parse_blur(text: str) -> tuple[str, float]:
    """Read a blur as it is written on the command line.

    Args:
        text: `box:SIDE` (odd), `disc:RADIUS`, `gaussian:SIGMA`, or `none`.

    Returns:
        Its name and its size in pixels.

    Raises:
        UserError: if it is none of these, or its size is not possible.
    """
    name, _, size = text.partition(":")
    sizes = {"box": "SIDE", "disc": "RADIUS", "gaussian": "SIGMA"}
    if name == "none" and not size:
        return name, 0.0
    if name not in sizes:
        raise UserError(f"no blur is called {text!r}; give box:5, disc:2.5, gaussian:1.6 or none")
    try:
        value = float(size)
    except ValueError:
        raise UserError(f"blur {text!r} needs a size in pixels: {name}:{sizes[name]}") from None
    if name == "box":
        if (
            not math.isfinite(value)
            or value != int(value)
            or value < 1
            or value % 2 == 0
            or value > 2 * LARGEST_RADIUS + 1
        ):
            raise UserError(
                f"the side of a box blur must be odd, from 1 to {2 * LARGEST_RADIUS + 1}, got {size}"
            )
    elif not 0 < value <= (LARGEST_RADIUS if name == "disc" else LARGEST_RADIUS / 4):
        most = LARGEST_RADIUS if name == "disc" else LARGEST_RADIUS / 4
        raise UserError(f"the {sizes[name].lower()} of a {name} blur must be in (0, {most:g}], got {size}")
    return name, value


def blur_in_words(text: str) -> str:
    """A blur as `parse_blur` reads it, in words, without an article.

    Raises:
        UserError: as `parse_blur`.
    """
    name, size = parse_blur(text)
    return {
        "none": "no blur",
        "box": f"{size:g} x {size:g} box blur",
        "disc": f"disc blur of radius {size:g}",
        "gaussian": f"Gaussian blur of sigma {size:g}",
    }[name]


def kernel_reach(name: str, size: float) -> int:
    """Pixels to each side of the centre that a kernel needs at most."""
    if name == "disc":
        return int(np.ceil(size - 0.5)) if size > 0.5 else 0
    return int(np.ceil(4 * size)) if name == "gaussian" else int(size) // 2


def blur_kernels(name: str, sizes: Tensor, reach: int) -> Tensor:
    """A kernel for each size, made where the sizes are.

    Args:
        name: "box", "disc" or "gaussian".
        sizes: N sizes in pixels, as `parse_blur` names them, or 0 for no blur. That of a box is rounded down
            to an odd number.
        reach: `kernel_reach` of the largest.

    Returns:
        N x (2 reach + 1) x (2 reach + 1) int64, symmetric. Each sums up to `WEIGHT_SUM`, but a box to the
        number of its pixels: an odd one, so that no mean lies half-way between two levels.
    """
    place = torch.arange(-reach, reach + 1, device=sizes.device)
    if name == "box":
        inside = (2 * place.abs() < sizes[:, None].clamp(min=1)).to(torch.int64)
        return inside[:, :, None] * inside[:, None]
    if name == "disc":
        # Each pixel is weighted by how much of it the disc covers: points counted, not measured.
        side = 2 * reach + 1
        points = (torch.arange(side * COVERAGE, device=sizes.device) + 0.5) / COVERAGE - reach - 0.5
        squares = points.to(sizes.dtype) ** 2
        inside = squares[:, None] + squares <= (sizes**2)[:, None, None]
        counts = inside.reshape(-1, side, COVERAGE, side, COVERAGE).sum((2, 4))
        # A disc smaller than the distance of the points still covers a part of the centre, and only of it.
        counts[:, reach, reach] += counts.sum((1, 2)) == 0
        total = counts.sum((1, 2), keepdim=True)
        whole = (2 * WEIGHT_SUM * counts + total) // (2 * total)
    else:
        profile = torch.exp(-0.5 * (place / sizes[:, None].clamp(min=1e-3)) ** 2)
        weights = profile[:, :, None] * profile[:, None]
        whole = torch.round(weights * (WEIGHT_SUM / weights.sum((1, 2), keepdim=True))).to(torch.int64)
    # What rounding leaves over goes to the centre.
    whole[:, reach, reach] += WEIGHT_SUM - whole.sum((1, 2))
    return whole


@dataclass(frozen=True)
class Kernel:
    """One kernel as plain numbers."""

    reach: int
    """Pixels to each side of the centre."""
    total: int
    """The sum of the weights."""
    taps: tuple[tuple[int, int, int], ...]
    """Row, column and weight, of those that are not 0."""


@constant
def fixed_kernel(name: str, size: float) -> Kernel:
    """The kernel of one size, made on the CPU, whatever device it is for; "none" is one pixel.

    Args:
        name, size: as `parse_blur` gives them.
    """
    if name == "none":
        return Kernel(0, 1, ((0, 0, 1),))
    reach = kernel_reach(name, size)
    whole = blur_kernels(name, torch.tensor([size], dtype=torch.float64), reach)[0].numpy()
    # A Gaussian's outermost weights round to nothing.
    used = int(np.abs(np.argwhere(whole) - reach).max())
    whole = whole[reach - used : reach + used + 1, reach - used : reach + used + 1]
    taps = tuple((int(row), int(column), int(whole[row, column])) for row, column in np.argwhere(whole))
    return Kernel(used, int(whole.sum()), taps)


def blur_kernel(text: str) -> NDArray[np.float64]:
    """The weights of a blur as `parse_blur` reads it: square, odd side, sum 1; one pixel for `none`.

    Raises:
        UserError: as `parse_blur`.
    """
    kernel = fixed_kernel(*parse_blur(text))
    weights = np.zeros((2 * kernel.reach + 1,) * 2)
    for row, column, weight in kernel.taps:
        weights[row, column] = weight
    return weights / kernel.total

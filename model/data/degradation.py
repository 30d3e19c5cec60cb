"""How a sharp photograph becomes a blurred one: blur, noise and 8 bits, the same on any device."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.data.blur import box_sums
from model.errors import UserError

__all__ = ["Degradation", "blur_in_words", "blur_kernel", "disc_kernel", "gaussian_kernel", "parse_blur"]

# Weights of a kernel are whole numbers of this sum: with 8-bit pixels every partial sum stays below 2^24, so
# float32 adds them exactly, in any order, on any device.
WEIGHT_SUM = 1 << 15
LARGEST_RADIUS = 31
# Points across a pixel, in each direction, at which a disc is asked how much of the pixel it covers.
COVERAGE = 16


def disc_kernel(radius: float) -> NDArray[np.int64]:
    """The blur of a lens out of focus: a disc, each pixel weighted by how much of it the disc covers.

    Args:
        radius: of the disc in pixels, above 0.

    Returns:
        (2 r + 1) x (2 r + 1) whole numbers that sum up to `WEIGHT_SUM`.
    """
    reach = int(np.ceil(radius - 0.5)) if radius > 0.5 else 0
    points = (np.arange((2 * reach + 1) * COVERAGE) + 0.5) / COVERAGE - reach - 0.5
    inside = points[:, None] ** 2 + points**2 <= radius**2
    side = 2 * reach + 1
    return _whole(inside.reshape(side, COVERAGE, side, COVERAGE).mean((1, 3)))


def gaussian_kernel(sigma: float) -> NDArray[np.int64]:
    """A Gaussian, cut where its weights round to nothing or at 4 sigma.

    Args:
        sigma: standard deviation in pixels, above 0.

    Returns:
        Square, odd side, whole numbers that sum up to `WEIGHT_SUM`.
    """
    reach = int(np.ceil(4 * sigma))
    profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return _whole(profile[:, None] * profile)


def _whole(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Weights as whole numbers of the right sum, symmetric: what rounding leaves over goes to the centre."""
    whole = np.round(weights * (WEIGHT_SUM / weights.sum())).astype(np.int64)
    centre = whole.shape[0] // 2
    whole[centre, centre] += WEIGHT_SUM - whole.sum()
    used = np.abs(np.argwhere(whole) - centre).max()
    return whole[centre - used : centre + used + 1, centre - used : centre + used + 1]


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
        if value != int(value) or value < 1 or value % 2 == 0 or value > 2 * LARGEST_RADIUS + 1:
            raise UserError(
                f"the side of a box blur must be odd, from 1 to {2 * LARGEST_RADIUS + 1}, got {size}"
            )
    elif not 0 < value <= (LARGEST_RADIUS if name == "disc" else LARGEST_RADIUS / 4):
        most = LARGEST_RADIUS if name == "disc" else LARGEST_RADIUS / 4
        raise UserError(f"the {sizes[name].lower()} of a {name} blur must be in (0, {most:g}], got {size}")
    return name, value


@lru_cache(maxsize=8)
def _kernel(name: str, size: float) -> NDArray[np.int64]:
    return disc_kernel(size) if name == "disc" else gaussian_kernel(size)


def blur_kernel(text: str) -> NDArray[np.float64]:
    """The weights of a blur as `parse_blur` reads it: square, odd side, sum 1; one pixel for `none`.

    Raises:
        UserError: as `parse_blur`.
    """
    name, size = parse_blur(text)
    if name in ("none", "box"):
        side = int(size) or 1
        return np.full((side, side), 1 / side**2)
    return _kernel(name, size) / WEIGHT_SUM


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


@dataclass(frozen=True)
class Degradation:
    """Blur, then noise, then 8 bits.

    Source: MMSP 2024, section IV, whose synthetic sets are box:5 without noise and with noise of variance
    0.003; bit-exact with its published crops.
    """

    blur: str = "box:5"
    """See `parse_blur`."""
    noise: float = 0.0
    """Variance of Gaussian noise on [0, 1], added to the blurred picture."""
    quantise: bool = True
    """Round to 8 bits after the blur and again after the noise, as stored pictures are."""

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the value.
        """
        parse_blur(self.blur)
        if not self.noise >= 0:
            raise UserError(f"--noise must not be negative, got {self.noise}")

    @property
    def radius(self) -> int:
        """How far a pixel is spread; an image must be larger."""
        name, size = parse_blur(self.blur)
        if name in ("none", "box"):
            return int(size) // 2
        return _kernel(name, size).shape[0] // 2

    def __call__(self, sharp: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Degrade pictures; the border is mirrored without repeating the edge pixel.

        Args:
            sharp: N x C x H x W uint8, both sides larger than `radius`.
            generator: draws the noise; on the device of `sharp`.

        Returns:
            float32 in [0, 1], of the same shape.

        Raises:
            TypeError: if `sharp` is not uint8.
        """
        if sharp.dtype != torch.uint8:
            raise TypeError(f"a degradation takes uint8 images, got {sharp.dtype}")
        name, size = parse_blur(self.blur)
        if name == "none":
            sums, total = sharp.to(torch.float32), 1
        elif name == "box":
            sums, total = box_sums(sharp, int(size)), int(size) ** 2
        else:
            sums, total = _weighted_sums(sharp, _kernel(name, size)), WEIGHT_SUM
        # Half-way cases are rounded up; a box of odd side has none.
        # Sums are whole: half of an odd total keeps the quotient clear of the next number, also on a GPU,
        # which divides through the reciprocal.
        image = torch.floor((sums + total / 2) / total) if self.quantise else sums / total
        if self.noise:
            draw = torch.randn(image.shape, generator=generator, device=image.device)
            image = image + draw * (255 * self.noise**0.5)
            if self.quantise:
                image = image.round().clamp_(0, 255)
        return image / 255

    def describe(self) -> str:
        """The degradation in words, for logs and tables."""
        noise = f", Gaussian noise of variance {self.noise:g}" if self.noise else ""
        return blur_in_words(self.blur) + noise + (", 8 bits" if self.quantise else ", not quantised")


def _weighted_sums(image: Tensor, kernel: NDArray[np.int64]) -> Tensor:
    """The kernel applied with whole-number weights: exact, which no convolution routine promises."""
    reach = kernel.shape[0] // 2
    height, width = image.shape[-2:]
    padded = F.pad(image.to(torch.float32), (reach,) * 4, mode="reflect")
    sums = torch.zeros(image.shape, dtype=torch.float32, device=image.device)
    for row, column in np.argwhere(kernel):
        window = padded[..., row : row + height, column : column + width]
        sums = torch.add(sums, window, alpha=int(kernel[row, column]))
    return sums

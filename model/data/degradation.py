"""How a sharp photograph becomes a blurred one: blur, noise, 8 bits and JPEG."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.data.blur import box_sums
from model.data.constants import constant
from model.data.jpeg import jpeg_loss
from model.data.kernels import (
    WEIGHT_SUM,
    Kernel,
    blur_in_words,
    blur_kernels,
    fixed_kernel,
    kernel_reach,
    parse_blur,
)
from model.errors import UserError

__all__ = ["Degradation"]

# White as an amount of light: with kernels of 2^15 every partial sum stays below 2^31, exact in int32.
LIGHT = (1 << 15) - 1


@dataclass(frozen=True)
class Degradation:
    """Blur, then noise, then 8 bits, then JPEG.

    Source: MMSP 2024, section IV, whose synthetic sets are box:5 without noise and with noise of variance
    0.003; bit-exact with its published crops. What lies beyond that is for photographs as they come.
    """

    blur: str = "box:5"
    """See `parse_blur`."""
    noise: float = 0.0
    """Variance of Gaussian noise on [0, 1], added to the blurred picture."""
    quantise: bool = True
    """Round to 8 bits after the blur and again after the noise, as stored pictures are."""
    jpeg: int = 0
    """Quality, 1 to 100, of JPEG compression at last; 0 does not compress."""
    light: bool = False
    """Blur the amounts of light that sRGB's levels stand for, as a lens does, and not the levels."""
    vary: bool = False
    """Each picture of a batch has a blur, a noise and a compression of its own, drawn evenly from none (of
    JPEG from quality 100) up to those given: in the size of the blur, rounded down to odd sides of a box, and
    in the deviation of the noise."""

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the value.
        """
        name, _ = parse_blur(self.blur)
        if not self.noise >= 0:
            raise UserError(f"--noise must not be negative, got {self.noise}")
        if not 0 <= self.jpeg <= 100:
            raise UserError(f"--jpeg is a quality from 1 to 100, or 0 for no compression, got {self.jpeg}")
        for option, used in (("light", self.light and name != "none"), ("jpeg", self.jpeg)):
            if used and not self.quantise:
                raise UserError(f"--{option} makes 8-bit pictures: leave --quantise false away")

    @property
    def random(self) -> bool:
        """Whether a generator is drawn from."""
        return bool(self.noise) or self.vary

    @property
    def radius(self) -> int:
        """How far a pixel is spread at most; an image must be larger."""
        name, size = parse_blur(self.blur)
        return kernel_reach(name, size) if self.vary else fixed_kernel(name, size).reach

    def __call__(self, sharp: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Degrade pictures; the border is mirrored without repeating the edge pixel.

        Args:
            sharp: N x C x H x W uint8, both sides larger than `radius`; C = 1 for JPEG.
            generator: draws what is random; on the device of `sharp`.

        Returns:
            float32 in [0, 1], of the same shape.

        Raises:
            TypeError: if `sharp` is not uint8.
            ValueError: if it is too small to be mirrored.
        """
        if sharp.dtype != torch.uint8:
            raise TypeError(f"a degradation takes uint8 images, got {sharp.dtype}")
        if min(sharp.shape[-2:]) <= self.radius:
            raise ValueError(
                f"blur {self.blur} needs an image larger than {self.radius} pixels, got {tuple(sharp.shape)}"
            )
        device = sharp.device
        shares = torch.rand(3, len(sharp), generator=generator, device=device) if self.vary else None
        image = self._blurred(sharp, None if shares is None else shares[0])
        if self.noise:
            draw = torch.randn(image.shape, generator=generator, device=device)
            deviation = 255 * self.noise**0.5
            image = image + draw * (
                deviation if shares is None else deviation * shares[1, :, None, None, None]
            )
            if self.quantise:
                image = image.round().clamp_(0, 255)
        if self.jpeg:
            loss = 100 - self.jpeg
            lost = (
                torch.full((len(sharp),), float(loss), device=device) if shares is None else loss * shares[2]
            )
            image = jpeg_loss(image, 100 - lost)
        return image / 255

    def _blurred(self, sharp: Tensor, shares: Tensor | None) -> Tensor:
        """Levels from 0 to 255 in float32, whole where `quantise` says so.

        `shares` of the size are one for each picture, or None where all have the whole.
        """
        name, size = parse_blur(self.blur)
        image = sharp.to(torch.float32)
        if name == "none":
            return image
        if self.light:
            to_light, to_levels = _curve(sharp.device)
            image = to_light[sharp.long()]
        if shares is not None:
            kernels = blur_kernels(name, size * shares, self.radius).to(image.dtype)
            sums = _drawn_sums(image, kernels)
            total = kernels.sum((1, 2))[:, None, None, None] if name == "box" else WEIGHT_SUM
        elif name == "box" and not self.light:
            sums, total = box_sums(sharp, int(size)), int(size) ** 2
        else:
            kernel = fixed_kernel(name, size)
            sums, total = _weighted_sums(image, kernel), kernel.total
        # Half-way cases are rounded up; a box of odd side has none.
        if self.light:
            return to_levels[((sums + total // 2) // total).long()]
        # Sums are whole: half of an odd total keeps the quotient clear of the next number, also on a GPU,
        # which divides through the reciprocal; that of WEIGHT_SUM is exact.
        return torch.floor((sums + total / 2) / total) if self.quantise else sums / total

    def describe(self) -> str:
        """The degradation in words, for logs and tables."""
        blurred = parse_blur(self.blur)[0] != "none"
        parts = [blur_in_words(self.blur) + " of light" * (self.light and blurred)]
        if self.noise:
            parts.append(f"Gaussian noise of variance {self.noise:g}")
        if self.jpeg:
            parts.append(f"JPEG of quality {self.jpeg}")
        if self.vary:
            parts[-1] += ", drawn anew for every picture up to this"
        return ", ".join([*parts, "8 bits" if self.quantise else "not quantised"])


@constant
def _curve(device: torch.device) -> tuple[Tensor, Tensor]:
    """sRGB's curve: the light of each of 256 levels, int32, and the level of each amount of light, float32.

    Source: IEC 61966-2-1.
    """
    level = np.arange(256) / 255
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    there = np.arange(LIGHT + 1) / LIGHT
    back = np.where(there <= 0.0031308, there * 12.92, 1.055 * there ** (1 / 2.4) - 0.055)
    return (
        torch.tensor(np.rint(light * LIGHT), dtype=torch.int32, device=device),
        torch.tensor(np.rint(back * 255), dtype=torch.float32, device=device),
    )


def _weighted_sums(image: Tensor, kernel: Kernel) -> Tensor:
    """The kernel applied with whole-number weights: exact, which no convolution routine promises."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (kernel.reach,) * 4, mode="reflect")
    sums = torch.zeros_like(image)
    for row, column, weight in kernel.taps:
        window = padded[..., row : row + height, column : column + width]
        sums = torch.add(sums, window, alpha=weight)
    return sums


def _drawn_sums(image: Tensor, kernels: Tensor) -> Tensor:
    """The same with N kernels, one for each picture."""
    reach = kernels.shape[-1] // 2
    height, width = image.shape[-2:]
    padded = F.pad(image, (reach,) * 4, mode="reflect")
    sums = torch.zeros_like(image)
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            window = padded[..., row : row + height, column : column + width]
            sums = torch.addcmul(sums, window, kernels[:, row, column, None, None, None])
    return sums

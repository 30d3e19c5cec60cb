"""Which pixels are compared: everything that changes a number of the table, in one record."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from model.classical.blur import Border, KernelBlur
from model.classical.naming import nearest
from model.data.crops import central_crop
from model.data.degradation import Degradation
from model.data.jpeg import jpeg_loss
from model.data.kernels import blur_kernel, parse_blur
from model.data.photographs import Photograph, UnreadablePhotograph, find_photographs, read_luma
from model.errors import UserError

__all__ = ["PROTOCOLS", "Pair", "Protocol", "find_protocol", "match_pairs"]


@dataclass(frozen=True)
class Pair:
    """A sharp luma picture, H x W uint8, and its blurred one."""

    name: str
    sharp: NDArray[np.uint8]
    blurred: NDArray[Any]
    """H x W: uint8, or float64 in [0, 1] where the protocol does not round."""

    @property
    def observed(self) -> NDArray[np.float64]:
        """What methods are given: H x W in [0, 1]."""
        return self.blurred / 255 if self.blurred.dtype == np.uint8 else self.blurred


@dataclass(frozen=True)
class Protocol:
    """How sharp photographs become pairs, and how results become the pixels that are measured.

    The defaults are the paper's pixels (MMSP 2024, section IV), but results are rounded, where its code
    truncates.
    """

    name: str = "central"
    data: str = ""
    """The data set that is meant where none is named."""
    crop: int = 128
    """Side of the crops; 0 is the whole picture."""
    grid: bool = False
    """Crops side by side from the top-left corner, as many as fit, instead of the central one."""
    blur: str = "box:5"
    """box:SIDE, disc:RADIUS, gaussian:SIGMA or none, as for training."""
    border: Border = "reflect"
    """How the blur continues the crop: mirrored without repeating the edge pixel, or periodically."""
    eight_bits: bool = True
    """Round the blurred crop to 8 bits; else methods are given the unrounded numbers."""
    noise: float = 0.0
    """Variance of Gaussian noise added after blurring, white being 1."""
    seed: int = 0
    """Of the noise; each picture has its own, by name."""
    light: bool = False
    """Blur the amounts of light that sRGB's levels stand for, as a lens does, and not the levels."""
    jpeg: int = 0
    """Quality, 1 to 100, of JPEG compression at last; 0 does not compress."""
    photographed: bool = False
    """The blur is real: blurred pictures are read, and nobody knows the operator."""
    output: Literal["round", "truncate"] = "round"
    """How results, clipped to [0, 1], become 8 bits."""

    def operator(self) -> KernelBlur | None:
        """The blur that methods may be told of: the protocol's without its rounding.

        None for a real one, and for one of light, which is no kernel on the levels that methods see.
        """
        if self.photographed or self.light:
            return None
        # The published results of aL, mLM and mRL were made with an operator that clips; one with mirrored
        # border belongs to the networks' protocol and does not.
        kernel = torch.from_numpy(blur_kernel(self.blur))
        return KernelBlur(kernel, self.border, clip=self.border == "circular")

    def pair(self, photograph: Photograph, name: str | None = None) -> Pair:
        """Crop the middle of a sharp photograph, then blur the crop: the border is that of the crop.

        Raises:
            ValueError: if the photograph is smaller than the crop.
        """
        sharp = np.ascontiguousarray(central_crop(photograph.luma, self.crop))
        return self._blurred(name or photograph.path.stem, sharp)

    def pairs(self, photograph: Photograph, name: str | None = None) -> list[Pair]:
        """All pairs of one photograph: one, or the crops of the grid, named NAME@COLUMN,ROW in pixels.

        Raises:
            ValueError: if the photograph is smaller than the crop.
        """
        name = name or photograph.path.stem
        if not self.grid:
            return [self.pair(photograph, name)]
        return [self._blurred(name + place, sharp) for place, sharp in self._cut(photograph.luma)]

    def cut(self, sharp: Photograph, blurred: NDArray[np.uint8], name: str) -> list[Pair]:
        """The pairs of a photograph and its really blurred partner of the same size."""
        pieces = zip(self._cut(sharp.luma), self._cut(blurred), strict=True)
        return [Pair(name + place, one, other) for (place, one), (_, other) in pieces]

    def _cut(self, luma: NDArray[np.uint8]) -> list[tuple[str, NDArray[np.uint8]]]:
        if not self.grid or not self.crop:
            return [("", np.ascontiguousarray(central_crop(luma, self.crop)))]
        tops, lefts = (range(0, side - self.crop + 1, self.crop) for side in luma.shape)
        if not tops or not lefts:
            raise ValueError(f"{luma.shape[1]} x {luma.shape[0]} holds no crop of {self.crop} pixels")
        return [
            (
                f"@{left},{top}",
                np.ascontiguousarray(luma[top : top + self.crop, left : left + self.crop]),
            )
            for top in tops
            for left in lefts
        ]

    def _blurred(self, name: str, sharp: NDArray[np.uint8]) -> Pair:
        pixels = torch.from_numpy(sharp)[None, None]
        if self.eight_bits and self.border == "reflect":
            # In whole numbers, bit for bit the published blur. The paper's noise comes on top of 8 bits.
            blurred = Degradation(self.blur, light=self.light)(pixels)[0, 0].numpy() * 255
            blurred = blurred.round().astype(np.uint8) / 255
        else:
            operator = self.operator()
            assert operator is not None  # a real blur does not come here
            blurred = operator(pixels.to(torch.float64) / 255)[0, 0].numpy()
        if self.noise:
            random = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
            blurred = blurred + random.normal(0, self.noise**0.5, blurred.shape)
        if not self.eight_bits:
            return Pair(name, sharp, blurred)
        levels = np.rint(blurred.clip(0, 1) * 255).astype(np.uint8)
        if self.jpeg:
            compressed = jpeg_loss(torch.from_numpy(levels)[None, None], torch.tensor([float(self.jpeg)]))
            levels = compressed[0, 0].numpy().astype(np.uint8)
        return Pair(name, sharp, levels)

    def describe(self, pairs: int, real: bool = False) -> str:
        """The protocol in one line, for the foot of a table; `real` for a blur that was photographed."""
        real = real or self.photographed
        photographs = f"{pairs} photograph{'s' * (pairs != 1)}"
        if not self.crop:
            area = f"whole luma pictures of {photographs}"
        elif self.grid:
            count = f"{pairs} luma crop{'s' * (pairs != 1)}"
            area = f"{count} of {self.crop} x {self.crop}, side by side over each photograph"
        else:
            area = f"central {self.crop} x {self.crop} luma crops of {photographs}"
        border = {
            "reflect": "mirrored border",
            "circular": "circular border (given to methods with its clipping to [0, 1])",
        }[self.border]
        kind, size = parse_blur(self.blur)
        by = {
            "box": f"a {size:g} x {size:g} box",
            "disc": f"a disc of radius {size:g}",
            "gaussian": f"a Gaussian of sigma {size:g}",
        }
        light = " in amounts of light" * self.light
        blur = f"blurred by {by[kind]}{light}, {border}" if kind in by else "not blurred"
        parts = [area, "blurred as photographed" if real else blur]
        if self.noise and not real:
            parts.append(f"Gaussian noise of variance {self.noise:g} (seed {self.seed})")
        if self.jpeg and not real:
            parts.append(f"JPEG of quality {self.jpeg}")
        parts.append(
            "8 bits in and out" if self.eight_bits or real else "blurred pictures not rounded, 8 bits out"
        )
        if self.output == "truncate":
            parts.append("results truncated")
        return ", ".join(parts)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(),
        Protocol("paper-kodak", data="kodak", output="truncate"),
        Protocol("paper-bsds", data="bsds500", output="truncate"),
        Protocol("paper-noisy", data="kodak", noise=0.003, output="truncate"),
        Protocol("paper-circular", data="kodak", border="circular", eight_bits=False, output="truncate"),
        Protocol("focus", data="kodak", blur="disc:2", noise=2.5e-5, light=True, jpeg=90),
        Protocol("full", crop=0),
        Protocol("grid", grid=True),
        Protocol("pairs", crop=0, photographed=True),
    )
}
"""By name. paper-kodak and paper-bsds are what the paper fed its networks; paper-circular is what it fed its
iterative methods, without which mLM diverges; paper-noisy is its noisy example (measured on its published
crops; the text says 0.3). focus is a photograph out of focus as a camera stores it, noise of 1.3 levels."""


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UserError: if there is none, naming the nearest.
    """
    if name not in PROTOCOLS:
        raise UserError(f"no protocol is called {name!r}; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def match_pairs(
    sharp: Sequence[Path],
    blurred: Path,
    crop: int,
    on_skip: Callable[[Path, str], None],
    grid: bool = False,
) -> Iterator[Pair]:
    """Pair sharp photographs with the blurred ones of the same name (the suffix may differ).

    Args:
        sharp: the photographs.
        blurred: folder of their partners.
        crop: side of the central crop; 0 takes whole pictures.
        on_skip: called with the path and the reason for each pair that is left out.
        grid: take crops side by side instead of the central one.

    Raises:
        UserError: if a name has no partner, or the two of a pair differ in size.
    """
    by_name: dict[str, Path] = {}
    for path in find_photographs(blurred):
        if path.stem in by_name:
            raise UserError(f"two blurred pictures are called {path.stem!r}: {by_name[path.stem]} and {path}")
        by_name[path.stem] = path
    missing = [path.name for path in sharp if path.stem not in by_name]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(sharp)} photographs have no partner in {blurred}, e.g. {missing[0]}"
        )
    protocol = Protocol(crop=crop, grid=grid, photographed=True)
    for path in sharp:
        partner = by_name[path.stem]
        try:
            pictures = [read_luma(path), read_luma(partner)]
        except UnreadablePhotograph as reason:
            on_skip(path, str(reason))
            continue
        if pictures[0].shape != pictures[1].shape:
            sizes = " and ".join(f"{luma.shape[1]} x {luma.shape[0]}" for luma in pictures)
            raise UserError(f"{path.name} and its blurred partner differ in size: {sizes}")
        # SSIM's window is 11 pixels wide.
        if min(pictures[0].shape) < max(crop, 11):
            on_skip(path, f"smaller than {max(crop, 11)} pixels")
            continue
        yield from protocol.cut(Photograph(path, pictures[0]), pictures[1], path.stem)

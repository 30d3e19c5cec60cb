"""Which pixels are compared: everything that changes a number of the table, in one record."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.data.blur import box_blur
from model.data.crops import central_crop
from model.data.photographs import Photograph, UnreadablePhotograph, find_photographs, read_luma
from model.errors import UserError

__all__ = ["Pair", "Protocol", "match_pairs"]


@dataclass(frozen=True)
class Pair:
    """A sharp luma picture and its blurred one, both H x W uint8."""

    name: str
    sharp: NDArray[np.uint8]
    blurred: NDArray[np.uint8]


@dataclass(frozen=True)
class Protocol:
    """The paper's protocol by default: central 128 x 128 luma crop, blurred by a 5 x 5 box, 8 bits.

    Source: MMSP 2024, section IV.
    """

    crop: int = 128
    """Side of the central crop; 0 is the whole picture."""
    box: int = 5
    """Side of the box blur."""

    def blur(self, photograph: Photograph) -> Pair:
        """Crop a sharp photograph, then blur the crop: the blur mirrors at the border of the crop.

        Raises:
            ValueError: if the photograph is smaller than the crop.
        """
        sharp = np.ascontiguousarray(central_crop(photograph.luma, self.crop))
        blurred = box_blur(torch.from_numpy(sharp)[None, None], self.box)[0, 0].numpy()
        return Pair(photograph.path.stem, sharp, blurred)

    def describe(self, pairs: int, real: bool = False) -> str:
        """The protocol in one line, for the foot of a table."""
        area = f"central {self.crop} x {self.crop} luma crops" if self.crop else "whole luma pictures"
        blur = (
            "blurred as photographed"
            if real
            else f"blurred by a {self.box} x {self.box} box, mirrored border"
        )
        return f"{area} of {pairs} photograph{'s' * (pairs != 1)}, {blur}, 8 bits in and out"


def match_pairs(
    sharp: Sequence[Path], blurred: Path, crop: int, on_skip: Callable[[Path, str], None]
) -> Iterator[Pair]:
    """Pair sharp photographs with the blurred ones of the same name (the suffix may differ).

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
        if min(pictures[0].shape) < crop:
            on_skip(path, f"smaller than the crop of {crop} pixels")
            continue
        yield Pair(path.stem, *(np.ascontiguousarray(central_crop(luma, crop)) for luma in pictures))

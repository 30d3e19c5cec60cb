"""Crops of photographs: which ones a training run sees, in what order, and the central one for evaluation."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.data.luma_set import LumaSet

__all__ = ["CropPlan", "Places", "central_crop"]

Sampling = Literal["random", "grid"]

# Crops whose places are drawn together; a batch may lie across two such blocks.
BLOCK = 8192


def central_crop(luma: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The central size x size pixels; the whole image where `size` is 0.

    Where the margin is odd the crop lies half a pixel up and left of the centre.

    Raises:
        ValueError: if the image is smaller than the crop.
    """
    if size == 0:
        return luma
    height, width = luma.shape
    if min(height, width) < size:
        raise ValueError(f"cannot take a crop of {size} pixels from an image of {width} x {height}")
    top, left = (height - size) // 2, (width - size) // 2
    return luma[top : top + size, left : left + size]


@dataclass(frozen=True)
class Places:
    """Where some crops lie; arrays of one length."""

    image: NDArray[np.int64]
    """Index of the photograph."""
    top: NDArray[np.int64]
    left: NDArray[np.int64]
    symmetry: NDArray[np.int64]
    """0 to 7, how the crop is turned: bit 0 mirrors it left-right, bit 1 top-bottom, bit 2 swaps rows and
    columns afterwards. 0 leaves it upright."""

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, part: slice) -> "Places":
        return Places(self.image[part], self.top[part], self.left[part], self.symmetry[part])

    def cut(self, images: LumaSet, size: int, out: NDArray[np.uint8], degraded: bool = False) -> None:
        """Copy the crops into `out`, N x size x size uint8."""
        for index, (which, top, left, symmetry) in enumerate(
            zip(self.image, self.top, self.left, self.symmetry, strict=True)
        ):
            piece = images.image(which, degraded)[top : top + size, left : left + size]
            if symmetry:
                piece = piece[:, ::-1] if symmetry & 1 else piece
                piece = piece[::-1] if symmetry & 2 else piece
                piece = piece.T if symmetry & 4 else piece
            out[index] = piece

    def strides(self, images: LumaSet, size: int) -> NDArray[np.int64]:
        """The same crops as places in the flat array: 3 x N of first element, step down, step right.

        Pixel (i, j) of a crop is flat[first + i * down + j * right]: a symmetry is only another step.
        """
        width = images.widths[self.image]
        first = images.offsets[self.image] + self.top * width + self.left
        mirrored, upside_down = (self.symmetry & 1) > 0, (self.symmetry & 2) > 0
        first = first + np.where(mirrored, size - 1, 0) + np.where(upside_down, (size - 1) * width, 0)
        down, right = np.where(upside_down, -width, width), np.where(mirrored, -1, 1)
        swapped = (self.symmetry & 4) > 0
        return np.stack([first, np.where(swapped, right, down), np.where(swapped, down, right)])


class CropPlan:
    """Crop number k of a run, a function of (seed, k) alone, so a resumed run sees the same crops.

    Args:
        images: the photographs.
        size: side of the square crops.
        seed: not negative.
        augment: also turn and mirror each crop by one of the eight symmetries of the square, drawn at random.
        sampling: "random" draws every place of every photograph with the same chance, with replacement.
            "grid" cuts each photograph into crops side by side, centred, and goes through all of them in an
            order that is a function of (seed, epoch): a fixed set of crops, as the paper's.

    Raises:
        ValueError: if there is no image or one is smaller than the crop.
    """

    def __init__(
        self,
        images: LumaSet,
        size: int,
        seed: int = 0,
        augment: bool = False,
        sampling: Sampling = "random",
    ) -> None:
        if not len(images):
            raise ValueError("there are no images to take crops from")
        small = np.flatnonzero(np.minimum(images.heights, images.widths) < size)
        if small.size:
            height, width = images.heights[small[0]], images.widths[small[0]]
            raise ValueError(f"an image of {width} x {height} holds no crop of {size} pixels")
        self.images, self.size, self.seed, self.augment, self.sampling = images, size, seed, augment, sampling
        if sampling == "grid":
            self._rows, self._columns = images.heights // size, images.widths // size
        else:
            self._rows, self._columns = images.heights - size + 1, images.widths - size + 1
        self._ends = np.cumsum(self._rows * self._columns)
        # What was drawn last serves the next batch too.
        self._draw = lru_cache(maxsize=2)(self._draw_block)

    def __len__(self) -> int:
        """How many different crops there are, upright ones."""
        return int(self._ends[-1])

    def places(self, first: int, count: int) -> Places:
        """The places of crops first, ..., first + count - 1 of the run."""
        block = len(self) if self.sampling == "grid" else BLOCK
        parts = []
        while count > 0:
            which, begin = divmod(first, block)
            taken = min(count, block - begin)
            parts.append(self._draw(which)[begin : begin + taken])
            first, count = first + taken, count - taken
        if len(parts) == 1:
            return parts[0]
        return Places(
            *(np.concatenate(field) for field in zip(*(vars(p).values() for p in parts), strict=True))
        )

    def _draw_block(self, which: int) -> Places:
        random = np.random.default_rng([self.seed, which])
        if self.sampling == "grid":
            drawn = random.permutation(len(self))
        else:
            drawn = random.integers(len(self), size=BLOCK)
        image = np.searchsorted(self._ends, drawn, side="right")
        inside = drawn - np.concatenate([[0], self._ends[:-1]])[image]
        top, left = np.divmod(inside, self._columns[image])
        if self.sampling == "grid":
            margins = self.images.heights % self.size // 2, self.images.widths % self.size // 2
            top, left = top * self.size + margins[0][image], left * self.size + margins[1][image]
        symmetry = random.integers(8, size=len(drawn)) if self.augment else np.zeros(len(drawn), np.int64)
        return Places(image, top, left, symmetry)

"""Crops of photographs: random ones for training, the central one for evaluation."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["RandomCrops", "central_crop"]


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


class RandomCrops:
    """Batches of random crops, each a function of (seed, step) alone, so a resumed run sees the same crops.

    A photograph is drawn with a chance proportional to the number of crops it holds, so every crop of the
    whole collection is equally likely.

    Args:
        images: H x W uint8 each, none smaller than `size`.
        size: side of the square crops.
        batch: crops in a batch.
        seed: not negative.
        augment: also turn and mirror each crop by one of the eight symmetries of the square, drawn at random.

    Raises:
        ValueError: if there is no image or one is smaller than the crop.
    """

    def __init__(
        self, images: Sequence[NDArray[np.uint8]], size: int, batch: int, seed: int = 0, augment: bool = False
    ) -> None:
        if not images:
            raise ValueError("there are no images to take crops from")
        for image in images:
            if min(image.shape) < size:
                raise ValueError(
                    f"an image of {image.shape[1]} x {image.shape[0]} holds no crop of {size} pixels"
                )
        self.images, self.size, self.batch, self.seed, self.augment = images, size, batch, seed, augment
        places = np.array([(image.shape[0] - size + 1) * (image.shape[1] - size + 1) for image in images])
        self._ends = np.cumsum(places)

    def at(self, step: int) -> Tensor:
        """The batch of one step: batch x 1 x size x size, uint8."""
        random = np.random.default_rng([self.seed, step])
        crops = np.empty((self.batch, 1, self.size, self.size), dtype=np.uint8)
        for crop, place in zip(crops, random.integers(self._ends[-1], size=self.batch), strict=True):
            which = int(np.searchsorted(self._ends, place, side="right"))
            image = self.images[which]
            inside = place - (self._ends[which - 1] if which else 0)
            top, left = divmod(int(inside), image.shape[1] - self.size + 1)
            piece = image[top : top + self.size, left : left + self.size]
            if self.augment:
                symmetry = int(random.integers(8))
                piece = np.rot90(piece, symmetry % 4)
                piece = piece[:, ::-1] if symmetry >= 4 else piece
            crop[0] = piece
        return torch.from_numpy(crops)

"""Many photographs' luma in one flat array, so that a crop is a place in it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

__all__ = ["LumaSet"]


@dataclass(frozen=True, eq=False)
class LumaSet:
    """Photographs, or pairs of a degraded and a sharp one, row by row one after the other.

    The arrays may be memory-mapped: nothing is read before it is needed. A selection shares them.
    """

    names: tuple[str, ...]
    """What each photograph is called in messages."""
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    offsets: NDArray[np.int64]
    """Where each photograph begins in the flat arrays."""
    target: NDArray[np.uint8]
    """Sharp luma, flat."""
    input: NDArray[np.uint8] | None = None
    """Degraded luma of the same shapes at the same places; None where the degradation is made."""

    @classmethod
    def from_images(
        cls,
        names: Sequence[str],
        targets: Sequence[NDArray[np.uint8]],
        inputs: Sequence[NDArray[np.uint8]] | None = None,
    ) -> "LumaSet":
        """Lay out H x W uint8 images, any sizes; `inputs` have the shapes of `targets`.

        Raises:
            ValueError: if there are no images or a pair differs in shape.
        """
        if not targets:
            raise ValueError("there are no images")
        if inputs is not None and [image.shape for image in inputs] != [image.shape for image in targets]:
            raise ValueError("inputs and targets differ in number or shape")
        shapes = np.array([image.shape for image in targets], dtype=np.int64)
        return cls(
            names=tuple(names),
            heights=shapes[:, 0],
            widths=shapes[:, 1],
            offsets=_starts(shapes[:, 0] * shapes[:, 1]),
            target=np.concatenate([image.reshape(-1) for image in targets]),
            input=None if inputs is None else np.concatenate([image.reshape(-1) for image in inputs]),
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def paired(self) -> bool:
        """Whether the degraded pictures are given."""
        return self.input is not None

    @property
    def pixels(self) -> int:
        """Pixels of the photographs in this selection."""
        return int((self.heights * self.widths).sum())

    @property
    def digest(self) -> str:
        """Tells this set from others by names and sizes, wherever it lies and without reading it."""
        names = "\n".join(name.replace("\\", "/").rpartition("/")[2] for name in self.names)
        return sha256(names.encode() + self.heights.tobytes() + self.widths.tobytes()).hexdigest()

    def image(self, index: int, degraded: bool = False) -> NDArray[np.uint8]:
        """One photograph, H x W uint8, sharing memory; the degraded one of a pair on request.

        Raises:
            ValueError: if the degraded one is asked for and the set is not paired.
        """
        flat = self.input if degraded else self.target
        if flat is None:
            raise ValueError("the set holds no degraded pictures")
        begin, height, width = self.offsets[index], self.heights[index], self.widths[index]
        return flat[begin : begin + height * width].reshape(height, width)

    def select(self, which: Sequence[int] | NDArray[np.int64]) -> "LumaSet":
        """The photographs of these indices, in this order."""
        which = np.asarray(which, dtype=np.int64)
        return replace(
            self,
            names=tuple(self.names[index] for index in which),
            heights=self.heights[which],
            widths=self.widths[which],
            offsets=self.offsets[which],
        )

    def at_least(self, side: int) -> "LumaSet":
        """The photographs with no side below `side` pixels."""
        return self.select(np.flatnonzero(np.minimum(self.heights, self.widths) >= side))

    def split(self, held_out: int, seed: int) -> tuple["LumaSet", "LumaSet"]:
        """Put `held_out` photographs, drawn by `seed`, aside: (the others, those)."""
        order = np.random.default_rng([seed, 0x5E7]).permutation(len(self))
        return self.select(np.sort(order[held_out:])), self.select(np.sort(order[:held_out]))

    def compact(self) -> "LumaSet":
        """The same photographs in arrays that hold nothing else, in memory."""
        sizes = self.heights * self.widths

        def gather(flat: NDArray[np.uint8]) -> NDArray[np.uint8]:
            result = np.empty(int(sizes.sum()), dtype=np.uint8)
            for begin, start, size in zip(starts, self.offsets, sizes, strict=True):
                result[begin : begin + size] = flat[start : start + size]
            return result

        starts = _starts(sizes)
        return replace(
            self,
            offsets=starts,
            target=gather(self.target),
            input=None if self.input is None else gather(self.input),
        )


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

"""Cutting a large picture into tiles that see something of their neighbours."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["Tile", "tiles", "together"]


@dataclass(frozen=True)
class Tile:
    """A part of a picture: `seen` goes through the network, and its part `kept` is put into the result."""

    seen: tuple[slice, slice]
    """Rows and columns of the picture."""
    kept: tuple[slice, slice]
    """Rows and columns of the picture, inside `seen`; the kept parts of all tiles cover it exactly once."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of `seen`."""
        return tuple(span.stop - span.start for span in self.seen)  # type: ignore[return-value]

    @property
    def inside(self) -> tuple[slice, slice]:
        """`kept` counted from the corner of `seen`."""
        return tuple(
            slice(kept.start - seen.start, kept.stop - seen.start)
            for kept, seen in zip(self.kept, self.seen, strict=True)
        )  # type: ignore[return-value]


def tiles(height: int, width: int, size: int, overlap: int) -> Iterator[Tile]:
    """Cover height x width with tiles, row by row.

    Sizes and overlaps that are multiples of 16 keep every tile on the pooling grid of the whole picture.

    Args:
        height, width: of the picture, at least 1.
        size: side of the kept parts; those at the right and the bottom are smaller.
        overlap: pixels seen beyond the kept part on each side, cut at the border of the picture.
    """
    for top in range(0, height, size):
        for left in range(0, width, size):
            kept = _span(top, size, height), _span(left, size, width)
            seen = tuple(
                slice(max(part.start - overlap, 0), min(part.stop + overlap, end))
                for part, end in zip(kept, (height, width), strict=True)
            )
            yield Tile(seen, kept)  # type: ignore[arg-type]


def together(parts: Iterable[Tile], pixels: int) -> Iterator[list[Tile]]:
    """Put tiles that see equally many rows and columns together, up to so many pixels that they see."""
    waiting: dict[tuple[int, int], list[Tile]] = {}
    for part in parts:
        group = waiting.setdefault(part.shape, [])
        group.append(part)
        height, width = part.shape
        if (len(group) + 1) * height * width > pixels:
            yield waiting.pop(part.shape)
    yield from waiting.values()


def _span(start: int, size: int, end: int) -> slice:
    return slice(start, min(start + size, end))

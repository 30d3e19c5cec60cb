"""A block of EXIF made true of another picture: a few values in place, all else byte for byte.

Makers' notes hold places inside the block, so it must not be taken apart and put together again.
"""

import contextlib
import struct

__all__ = ["has_thumbnail", "rewritten"]

_HEADER = b"Exif\0\0"
_ORIENTATION, _RESOLUTION, _DIRECTORY, _WIDTH, _HEIGHT = 0x112, (0x11A, 0x11B), 0x8769, 0xA002, 0xA003
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_ENTRY = 12


def has_thumbnail(block: bytes) -> bool:
    """Whether the block holds a thumbnail.

    Raises:
        ValueError: if the block is damaged.
    """
    data, order = _opened(block)
    return _next(data, order) != 0


def rewritten(block: bytes, width: int, height: int, by: int = 1) -> bytes:
    """The block for an upright picture of width x height pixels that is `by` times smaller than it was.

    Its thumbnail would show the picture as it was, and is cut off.

    Args:
        block: with or without the header "Exif".

    Returns:
        The block with that header.

    Raises:
        ValueError: if no directory can be found in it.
    """
    data, order = _opened(block)
    main, end = _directory(data, order, _start(data, order))
    if _next(data, order):
        struct.pack_into(order + "I", data, end, 0)
    _set(data, order, main.get(_ORIENTATION), 1)
    # What lies outside of the block is left as it is.
    with contextlib.suppress(struct.error):
        for tag in _RESOLUTION:
            _divide(data, order, main.get(tag), by)
    with contextlib.suppress(struct.error):
        if place := main.get(_DIRECTORY):
            inner, _ = _directory(data, order, struct.unpack_from(order + "I", data, place + 8)[0])
            _set(data, order, inner.get(_WIDTH), width)
            _set(data, order, inner.get(_HEIGHT), height)
    return _HEADER + bytes(data)


def _opened(block: bytes) -> tuple[bytearray, str]:
    """The block without its header, and the byte order; its first directory can be read."""
    while block.startswith(_HEADER):
        block = block[len(_HEADER) :]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    data = bytearray(block)
    try:
        if order is None:
            raise ValueError("no byte order")
        _directory(data, order, _start(data, order))
    except (struct.error, ValueError) as error:
        raise ValueError(f"damaged EXIF: {error}") from None
    return data, order


def _start(data: bytearray, order: str) -> int:
    return struct.unpack_from(order + "I", data, 4)[0]


def _directory(data: bytearray, order: str, start: int) -> tuple[dict[int, int], int]:
    """Where the entry of each tag begins, and where they end."""
    (count,) = struct.unpack_from(order + "H", data, start)
    end = start + 2 + _ENTRY * count
    if end > len(data):
        raise struct.error("a directory is cut off")
    places = range(start + 2, end, _ENTRY)
    return {struct.unpack_from(order + "H", data, place)[0]: place for place in places}, end


def _next(data: bytearray, order: str) -> int:
    """Where the second directory begins, which is the thumbnail's; 0 if there is none."""
    _, end = _directory(data, order, _start(data, order))
    return struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0


def _set(data: bytearray, order: str, place: int | None, value: int) -> None:
    if place is not None:
        (kind,) = struct.unpack_from(order + "H", data, place + 2)
        if kind in (_SHORT, _LONG):
            struct.pack_into(order + ("H" if kind == _SHORT else "I"), data, place + 8, value)


def _divide(data: bytearray, order: str, place: int | None, by: int) -> None:
    if place is not None:
        kind, _, where = struct.unpack_from(order + "HII", data, place + 2)
        if kind == _RATIONAL:
            (below,) = struct.unpack_from(order + "I", data, where + 4)
            struct.pack_into(order + "I", data, where + 4, below * by)

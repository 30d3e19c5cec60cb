"""A picture with all that must survive its restoration."""

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.photographs import UnreadablePhotograph, opened, sixteen_bits, upright
from model.errors import UserError
from model.photo.metadata import read_metadata, resized, save_options
from model.weights import replace_file

__all__ = ["Picture", "encoded", "format_of", "read_picture", "undecoded", "write_picture"]

_FORMATS = {
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
_GREY_8 = ("1", "L", "LA", "La")


@dataclass(frozen=True)
class Picture:
    """Upright pixels, and what belongs to them."""

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    """H x W x 3 uint8 RGB, or H x W x 1 grey in uint8 or uint16."""
    alpha: NDArray[np.uint8] | None = None
    """H x W transparency, kept as it is."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """EXIF, XMP, colour profile, resolution and more, as `read_metadata` finds them."""
    notes: tuple[str, ...] = ()
    """What could not be kept, in words."""
    lossless: bool = False
    """Whether a WebP must hold it without loss."""

    @property
    def white(self) -> int:
        """The largest value of a pixel."""
        return int(np.iinfo(self.pixels.dtype).max)

    def with_pixels(self, pixels: NDArray) -> "Picture":
        """The same picture with other pixels of the same shape and type."""
        return replace(self, pixels=pixels)

    def corner(self) -> "Picture":
        """Its first pixel, with all that belongs to it: whether a format can hold the picture shows in it."""
        alpha = None if self.alpha is None else self.alpha[:1, :1]
        return replace(self, pixels=self.pixels[:1, :1], alpha=alpha)

    def reduced(self, by: int) -> "Picture":
        """The picture `by` times smaller on each side, rounded up: means of squares of by x by pixels.

        Colours count as much as they are opaque. Squares that are cut off at the right and the bottom repeat
        their last pixels.
        """
        if by == 1:
            return self
        alpha = None if self.alpha is None else _means(self.alpha, by)
        pixels = _means(self.pixels, by, self.alpha)
        metadata = resized(self.metadata, pixels.shape[1], pixels.shape[0], by)
        return replace(self, pixels=pixels, alpha=alpha, metadata=metadata)


def _means(values: NDArray[Any], by: int, weights: NDArray[np.uint8] | None = None) -> NDArray[Any]:
    """Means of by x by pixels of H x W or H x W x C whole numbers, rounded; weighted by H x W of them."""
    if weights is None:
        return _divided(_sums(values, by), by * by).astype(values.dtype)
    weight = _sums(weights, by)[..., None]
    # One by one: at once they would take more memory than reading the picture.
    each = (np.multiply(channel, weights, dtype=np.uint32) for channel in np.moveaxis(values, -1, 0))
    channels = [_sums(channel, by) for channel in each]
    weighted = _divided(np.stack(channels, axis=-1), weight.clip(1))
    return np.where(weight > 0, weighted, _divided(_sums(values, by), by * by)).astype(values.dtype)


def _divided(sums: NDArray[np.int64], by: Any) -> NDArray[np.int64]:
    return (sums + by // 2) // by


def _sums(values: NDArray[Any], by: int) -> NDArray[np.int64]:
    height, width = values.shape[:2]
    more = [(0, -height % by), (0, -width % by), *[(0, 0)] * (values.ndim - 2)]
    whole = np.pad(values, more, mode="edge") if more[0][1] or more[1][1] else values
    squares = whole.reshape(-(-height // by), by, -(-width // by), by, *values.shape[2:])
    return squares.sum((1, 3), dtype=np.int64)


def format_of(path: Path) -> str:
    """The format that a suffix asks for, by Pillow's name.

    Raises:
        UserError: if results cannot be written so.
    """
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        found = f"{path.suffix} is" if path.suffix else "a name without a suffix has"
        raise UserError(
            f"{found} none of {', '.join(_FORMATS)}; convert it to TIFF, PNG or JPEG first"
        ) from None


def undecoded(path: Path) -> tuple[int, int, int]:
    """Width and height of a file in pixels, not turned, and the bytes that Pillow takes for each of them.

    Raises:
        UnreadablePhotograph: if it cannot be opened.
    """
    with opened(path) as file:
        return *file.size, {"1": 1, "L": 1, "I;16": 2, "I;16B": 2}.get(file.mode, 4)


def read_picture(path: Path) -> Picture:
    """Read a picture, turned upright.

    8-bit RGB and 8- and 16-bit grey are kept exactly, with transparency. Palettes become RGB. What Pillow can
    give with 8-bit RGB only (16-bit colour, CMYK, Lab) is taken so, and noted.

    Args:
        path: .png, .jpg, .jpeg, .webp, .tif or .tiff, which is also what its result can be written as.

    Raises:
        UnreadablePhotograph: if it cannot be decoded, or its pixels are floating point.
        UserError: if it has another suffix.
    """
    written_as = format_of(path)
    notes = []
    if _frames(path) > 1:
        notes.append("only the first of its frames was restored")
    with warnings.catch_warnings(record=True) as skipped, opened(path) as file:
        warnings.simplefilter("always", UserWarning)
        if _is_deep_colour(file):
            notes.append("its 16-bit colour was read and written with 8 bits")
        source = upright(file)
        metadata, lost = read_metadata(file, written_as)
        lossless = file.format == "WEBP" and _is_lossless(path.read_bytes())
    metadata = resized(metadata, *source.size)
    grey = source.mode in _GREY_8
    deep = sixteen_bits(source)
    if source.mode in ("CMYK", "LAB", "HSV"):
        notes.append(f"it was converted from {source.mode} to RGB without its colour profile")
        metadata.pop("icc_profile", None)
    if deep is not None and "transparency" in file.info:
        lost.append("the level that is transparent")
    if skipped and file.format == "TIFF":
        lost.append("tags that are damaged")
    if lost:
        notes.append(f"not kept: {', '.join(lost)}")
    alpha = None
    if deep is not None:
        values = deep[..., None]
    elif source.has_transparency_data:
        values = _values(source, "LA" if grey else "RGBA")
        values, alpha = values[..., :-1], values[..., -1]
    else:
        values = _values(source, "L" if grey else "RGB")
        values = values[..., None] if grey else values
    return Picture(values, alpha, metadata, tuple(notes), lossless)


def _values(source: Image.Image, mode: str) -> NDArray[np.uint8]:
    return np.array(source if source.mode == mode else source.convert(mode))


def _frames(path: Path) -> int:
    # In a file of its own: counting the frames of a TIFF reads them all, and one of them may be damaged.
    with suppress(UnreadablePhotograph), opened(path) as file:
        return getattr(file, "n_frames", 1)
    return 1


def _is_deep_colour(undecoded: Image.Image) -> bool:
    """Whether colour is stored with 16 bits, which only the raw mode of an undecoded tile tells."""
    return not undecoded.mode.startswith("I") and any(";16" in str(tile[3]) for tile in undecoded.tile[:1])


def _is_lossless(webp: bytes) -> bool:
    place = 12
    while place + 8 <= len(webp):
        kind, size = webp[place : place + 4], int.from_bytes(webp[place + 4 : place + 8], "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        # A frame of an animation is 16 bytes and then chunks of its own.
        place += 24 if kind == b"ANMF" else 8 + size + size % 2
    return False


def write_picture(path: Path, picture: Picture, quality: int = 95) -> None:
    """Write a picture in the format of the path's suffix, atomically, with its metadata.

    Args:
        path: .png, .jpg, .jpeg, .webp, .tif or .tiff.
        picture: JPEG takes neither transparency nor 16 bits, WebP no 16 bits.
        quality: of JPEG and of WebP that is not lossless; JPEG keeps the chroma at full resolution.

    Raises:
        UserError: if the format cannot hold the picture or the file cannot be written.
    """
    replace_file(path, encoded(path, picture, quality))


def encoded(path: Path, picture: Picture, quality: int = 95) -> bytes:
    """What `write_picture` writes.

    Raises:
        UserError: if the format cannot hold the picture.
    """
    pixels = picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels
    image = Image.fromarray(pixels)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    written_as = format_of(path)
    options = save_options(picture.metadata, written_as)
    if written_as == "JPEG":
        options |= {"quality": quality, "subsampling": 0}
    elif written_as == "WEBP":
        options |= {"lossless": True, "exact": True} if picture.lossless else {"quality": quality}
    content = io.BytesIO()
    try:
        image.save(content, written_as, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"it cannot be written as {path.suffix} ({image.mode}: {error}); name it .png or .tif"
        ) from None
    return content.getvalue()

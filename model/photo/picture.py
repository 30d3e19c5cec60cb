"""A picture with all that must survive its restoration."""

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.photographs import UnreadablePhotograph, open_picture
from model.errors import UserError
from model.weights import replace_file

__all__ = ["Picture", "read_picture", "write_picture"]

_GREY_8 = ("1", "L", "LA", "La")
_GREY_16 = ("I", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Picture:
    """Upright pixels, and what belongs to them."""

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    """H x W x 3 uint8 RGB, or H x W x 1 grey in uint8 or uint16."""
    alpha: NDArray[np.uint8] | None = None
    """H x W transparency, kept as it is."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """EXIF, colour profile and resolution, as Pillow's save() takes them."""
    notes: tuple[str, ...] = ()
    """What could not be kept, in words."""

    @property
    def white(self) -> int:
        """The largest value of a pixel."""
        return int(np.iinfo(self.pixels.dtype).max)

    def with_pixels(self, pixels: NDArray) -> "Picture":
        """The same picture with other pixels of the same shape and type."""
        return replace(self, pixels=pixels)

    def reduced(self, by: int) -> "Picture":
        """The picture `by` times smaller on each side, rounded up: means of squares of by x by pixels.

        Squares that are cut off at the right and the bottom repeat their last pixels.
        """
        if by == 1:
            return self
        alpha = None if self.alpha is None else _means(self.alpha, by)
        return replace(self, pixels=_means(self.pixels, by), alpha=alpha)


def _means(values: NDArray[Any], by: int) -> NDArray[Any]:
    """Means of by x by pixels of H x W or H x W x C whole numbers, rounded."""
    height, width = values.shape[:2]
    more = [(0, -height % by), (0, -width % by), *[(0, 0)] * (values.ndim - 2)]
    whole = np.pad(values, more, mode="edge") if more[0][1] or more[1][1] else values
    squares = whole.reshape(-(-height // by), by, -(-width // by), by, *values.shape[2:])
    sums = squares.sum((1, 3), dtype=np.int64)
    return ((sums + by * by // 2) // (by * by)).astype(values.dtype)


def read_picture(path: Path) -> Picture:
    """Read a picture, turned upright.

    8-bit RGB and 8- and 16-bit grey are kept exactly, with transparency. Palettes become RGB. What Pillow can
    give with 8-bit RGB only (16-bit colour, CMYK, Lab) is taken so, and noted.

    Raises:
        UnreadablePhotograph: if it cannot be decoded, or its pixels are floating point.
    """
    source = open_picture(path)
    notes = []
    metadata = {key: source.info[key] for key in ("icc_profile", "dpi") if source.info.get(key)}
    exif = source.getexif()
    if exif:
        metadata["exif"] = exif.tobytes()
    if getattr(source, "n_frames", 1) > 1:
        notes.append("only the first of its frames was restored")
    if source.mode == "F":
        raise UnreadablePhotograph("floating-point pixels have no fixed white; save it with 8 or 16 bits")
    if source.mode in _GREY_16:
        values = np.asarray(source).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadablePhotograph(f"grey values beyond 16 bits ({values.min()} to {values.max()})")
        return Picture(values.astype(np.uint16)[..., None], None, metadata, tuple(notes))
    if _has_deep_colour(path):
        notes.append("its 16-bit colour was read and written with 8 bits")
    if source.mode in ("CMYK", "LAB", "HSV"):
        notes.append(f"it was converted from {source.mode} to RGB without its colour profile")
        metadata.pop("icc_profile", None)
    grey = source.mode in _GREY_8
    if source.has_transparency_data:
        values = np.array(source.convert("LA" if grey else "RGBA"))
        return Picture(values[..., :-1], values[..., -1], metadata, tuple(notes))
    values = np.array(source.convert("L" if grey else "RGB"))
    return Picture(values[..., None] if grey else values, None, metadata, tuple(notes))


def _has_deep_colour(path: Path) -> bool:
    # After decoding nothing tells any more; the undecoded tile names the bits of the file.
    with Image.open(path) as undecoded:
        return bool(undecoded.tile) and "16" in str(undecoded.tile[0][3]) and undecoded.mode.startswith("RGB")


def write_picture(path: Path, picture: Picture, quality: int = 95) -> None:
    """Write a picture in the format of the path's suffix, atomically, with its metadata.

    Args:
        path: .png, .jpg, .jpeg, .webp, .tif or .tiff.
        picture: JPEG takes neither transparency nor 16 bits.
        quality: of JPEG and WebP; JPEG keeps the chroma at full resolution.

    Raises:
        UserError: if the format cannot hold the picture or the file cannot be written.
    """
    pixels = picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels
    image = Image.fromarray(pixels)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    options: dict[str, Any] = {
        ".jpg": {"quality": quality, "subsampling": 0},
        ".jpeg": {"quality": quality, "subsampling": 0},
        ".webp": {"quality": quality},
        ".tif": {"compression": "tiff_deflate"},
        ".tiff": {"compression": "tiff_deflate"},
    }.get(path.suffix.lower(), {})
    encoded = io.BytesIO()
    try:
        image.save(encoded, Image.registered_extensions()[path.suffix.lower()], **options, **picture.metadata)
    except (KeyError, OSError, ValueError) as error:
        raise UserError(
            f"cannot write {path.name} ({image.mode}) as {path.suffix or 'a picture'}: {error}"
        ) from None
    replace_file(path, encoded.getvalue())

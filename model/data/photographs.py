"""Reading photographs: which files, which way up, and as which numbers."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.luma import luma_uint8
from model.errors import UserError

__all__ = [
    "SUFFIXES",
    "Photograph",
    "UnreadablePhotograph",
    "find_photographs",
    "load_luma",
    "open_picture",
    "opened",
    "read_luma",
    "sixteen_bits",
    "upright",
]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"})

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Tags of TIFF.
_BITS, _PHOTOMETRIC, _PLANAR, _WHITE_IS_ZERO = 258, 262, 284, 0

# A gigapixel: panoramas and medium format pass, a decompression bomb does not.
LARGEST = 1_000_000_000


class UnreadablePhotograph(UserError):
    """A file that is no photograph we can read; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Photograph:
    """One photograph's luma: H x W uint8, and the file it came from."""

    path: Path
    luma: NDArray[np.uint8]


def find_photographs(sources: Path | Sequence[Path]) -> list[Path]:
    """List the photographs in folders, recursively, in an order that does not depend on the machine.

    Args:
        sources: folders or single files. Hidden files are left out.

    Returns:
        Paths in the order of `sources`, sorted inside each folder.

    Raises:
        UserError: if a source does not exist or a folder holds no photograph.
    """
    found: dict[Path, None] = {}
    for source in [sources] if isinstance(sources, Path) else sources:
        if source.is_file():
            found[source] = None
            continue
        if not source.is_dir():
            raise UserError(f"{source} does not exist; give a folder of photographs or a picture file")
        inside = [
            path
            for path in source.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
        if not inside:
            kinds = ", ".join(sorted(SUFFIXES))
            links = [path for path in source.rglob("*") if path.is_symlink() and path.is_dir()]
            unseen = f", but not behind the link {links[0]}: give the folder itself" if links else ""
            raise UserError(
                f"{source} holds no photographs; looked for {kinds} in it and its subfolders{unseen}"
            )
        found.update(dict.fromkeys(sorted(inside, key=lambda path: path.relative_to(source).as_posix())))
    return list(found)


def open_picture(path: Path) -> Image.Image:
    """Decode a picture completely and turn it upright as its EXIF orientation says.

    Raises:
        UnreadablePhotograph: if it cannot be decoded; the message says why.
    """
    with opened(path) as picture:
        return upright(picture)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture that is not decoded yet; what its decoder stumbles over is UnreadablePhotograph here.

    Raises:
        UnreadablePhotograph: if it cannot be opened, or while it is open; the message says why.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on; our own limit is below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Tags that cannot be read matter only to those who keep them.
            warnings.simplefilter("ignore", UserWarning)
            with _size_limit(), Image.open(path) as picture:
                yield picture
    except UserError:
        raise
    except FileNotFoundError:
        raise UnreadablePhotograph("no such file") from None
    except MemoryError:
        raise UnreadablePhotograph("there is not enough memory for it") from None
    except Exception as error:
        # A damaged file makes Pillow raise whatever its decoders stumble over: SyntaxError, struct.error, ...
        reason = str(error).removeprefix("cannot identify image file").strip() or "not a picture"
        reason = "not a picture, or a damaged one" if reason.endswith(f"{os.fspath(path)!r}") else reason
        raise UnreadablePhotograph(reason) from None


def upright(picture: Image.Image) -> Image.Image:
    """Decode a picture from `opened` and turn it as its EXIF orientation says, where that can be read.

    Raises:
        UnreadablePhotograph: if it holds 16-bit colour in planes.
    """
    tags = getattr(picture, "tag_v2", {})
    # Pillow takes the bytes of such planes for 8-bit levels; its uncompressed tiles say so.
    if tags.get(_PLANAR) == 2 and max(tags.get(_BITS, (8,))) > 8 and ";16" not in str(picture.tile[0][3]):
        raise UnreadablePhotograph("16-bit colour in separate planes cannot be read; save it interleaved")
    picture.load()
    turn = _TURNS.get(_orientation(picture))
    result = picture if turn is None else picture.transpose(turn)
    if picture.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        # Pillow turns only 8-bit levels over.
        result = Image.fromarray(65535 - np.asarray(result))
    # Kept for callers: Pillow's copies have no format.
    result.format = picture.format
    return result


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(0x0112, 1)
    except Exception:
        # A damaged block does not say which way is up; the pixels are whole.
        return 1


class _size_limit:
    """Sets Pillow's global limit of pixels for the duration of one file."""

    def __enter__(self) -> None:
        self.before = Image.MAX_IMAGE_PIXELS
        # Pillow raises at twice this number.
        Image.MAX_IMAGE_PIXELS = LARGEST // 2

    def __exit__(self, *_: object) -> None:
        Image.MAX_IMAGE_PIXELS = self.before


def read_luma(path: Path) -> NDArray[np.uint8]:
    """Read one photograph's luma as H x W uint8.

    Grey pictures are their own luma, 16 bits are rounded to 8, palettes and CMYK become RGB, and what is
    transparent is shown on white.

    Raises:
        UnreadablePhotograph: if the file cannot be decoded or has no photographic meaning (floating point).
    """
    picture = open_picture(path)
    if (deep := sixteen_bits(picture)) is not None:
        return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.mode in ("L", "1"):
        # A copy: what Pillow shows of its own memory cannot be written to, and torch warns of that.
        return np.array(picture.convert("L"))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture)
    return luma_uint8(np.asarray(picture.convert("RGB")))


def sixteen_bits(picture: Image.Image) -> NDArray[np.uint16] | None:
    """The levels of 16-bit grey, H x W; None of a picture with 8 bits.

    Raises:
        UnreadablePhotograph: if the levels go beyond 16 bits or are floating point.
    """
    if picture.mode == "F":
        raise UnreadablePhotograph("floating-point pixels have no fixed white; save it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return None
    # 16-bit grey comes as I;16 or, from some formats, as 32-bit I with 16-bit values.
    values = np.asarray(picture)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise UnreadablePhotograph(f"integer grey values beyond 16 bits ({values.min()} to {values.max()})")
    return values.astype(np.uint16)


def load_luma(
    paths: Iterable[Path],
    smallest: int = 1,
    on_skip: Callable[[Path, str], None] = lambda path, reason: None,
    on_read: Callable[[Path], None] = lambda path: None,
) -> list[Photograph]:
    """Read many photographs, leaving out the broken and the small ones.

    Args:
        paths: the files.
        smallest: photographs with a side below this many pixels are left out.
        on_skip: called with the path and the reason for each photograph left out.
        on_read: called with the path of each one when it has been dealt with, for progress bars.

    Raises:
        UserError: if nothing remains.
    """
    kept: list[Photograph] = []
    skipped: list[tuple[Path, str]] = []
    for path in paths:
        try:
            luma = read_luma(path)
            if min(luma.shape) < smallest:
                raise UnreadablePhotograph(
                    f"{luma.shape[1]} x {luma.shape[0]} is smaller than {smallest} pixels"
                )
            kept.append(Photograph(path, luma))
        except UnreadablePhotograph as reason:
            skipped.append((path, str(reason)))
            on_skip(path, str(reason))
        on_read(path)
    if not kept:
        example = f", e.g. {skipped[0][0].name}: {skipped[0][1]}" if skipped else ""
        raise UserError(f"none of {len(skipped)} photographs can be used{example}")
    return kept

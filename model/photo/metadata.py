"""What a picture carries beside its pixels: EXIF, XMP, texts, colour profile, gamma and resolution."""

import io
import re
import struct
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo, iTXt

from model.photo.exif import has_thumbnail, rewritten

__all__ = ["read_metadata", "resized", "save_options"]

# By format, what save_options() hands over.
_KEPT = {
    "JPEG": {"icc_profile", "dpi", "exif", "xmp", "comment"},
    "PNG": {"icc_profile", "dpi", "exif", "xmp", "text", "gamma", "srgb", "chromaticity"},
    "TIFF": {"icc_profile", "dpi", "exif", "xmp"},
    "WEBP": {"icc_profile", "exif", "xmp"},
}
_IN_WORDS = {
    "icc_profile": "its colour profile",
    "dpi": "its resolution",
    "exif": "its EXIF",
    "xmp": "its XMP",
    "comment": "its comment",
    "text": "its texts",
    "gamma": "its gamma",
    "srgb": "its rendering intent",
    "chromaticity": "its chromaticity",
    "photoshop": "its IPTC and Photoshop data",
    "flashpix": "its FlashPix data",
    "aspect": "the shape of its pixels",
}
_EXIF, _GPS, _INTEROP, _ORIENTATION, _RESOLUTION, _XMP = 0x8769, 0x8825, 0xA005, 0x112, 0x11A, 700
# Tags of TIFF: how the pixels of a file are stored, and what is handed over by itself.
_STRUCTURE = {
    0xFE, 0xFF, *range(0x100, 0x10D), *range(0x111, 0x11A), 0x11C, *range(0x120, 0x126), 0x13D,
    *range(0x140, 0x14C), *range(0x152, 0x156), 0x15B, *range(0x200, 0x20A), 0x211, 0x212, 0x214,
    0x8773, _XMP,
}  # fmt: skip
_NO_TEXT = {"XML:com.adobe.xmp", "Raw profile type exif"}


def read_metadata(picture: Image.Image, written_as: str) -> tuple[dict[str, Any], list[str]]:
    """What a file carries and its restoration can, and in words what it cannot.

    Args:
        picture: from `opened`, decoded.
        written_as: JPEG, PNG, TIFF or WEBP.

    Returns:
        Metadata by Pillow's names, EXIF as bytes and texts as a dictionary; and what is not kept.
    """
    info = picture.info
    names = ("icc_profile", "comment", "gamma", "srgb", "chromaticity")
    found = {name: info[name] for name in names if info.get(name) not in (None, b"")}
    if xmp := info.get("xmp") or info.get("XML:com.adobe.xmp", "").encode():
        found["xmp"] = xmp
    if text := {key: value for key, value in getattr(picture, "text", {}).items() if key not in _NO_TEXT}:
        found["text"] = text
    # Where JPEG has none, Pillow takes that of EXIF or makes one up; that of TIFF is among its tags.
    if "dpi" in info and (info.get("jfif_unit") in (1, 2) or picture.format == "PNG"):
        found["dpi"] = info["dpi"]
    lost = [_IN_WORDS[name] for name in ("photoshop", "flashpix", "aspect") if name in info]
    try:
        if exif := _tags(picture) if picture.format == "TIFF" else _block(info):
            if has_thumbnail(exif):
                lost.append("the thumbnail in its EXIF, which shows it as it was")
            found["exif"] = exif
    except Exception:
        # Pillow decodes tags when they are asked for, and raises whatever it stumbles over.
        lost.append("its EXIF, which is damaged")
    for name in list(found):
        if name not in _KEPT[written_as] or not _can_be_written({name: found[name]}, written_as):
            del found[name]
            lost.append(_IN_WORDS[name])
    return found, lost


def _block(info: dict[str, Any]) -> bytes:
    """EXIF as JPEG, PNG and WebP hold it; empty where there is none."""
    if "exif" not in info and (text := info.get("Raw profile type exif")):
        # As ImageMagick writes it: a name, the length, and digits.
        return bytes.fromhex("".join(text.split("\n")[3:]))
    return info.get("exif", b"")


def _tags(picture: Image.Image) -> bytes:
    """The tags of a TIFF that do not describe its own pixels, as a block of EXIF."""
    exif = picture.getexif()
    for tag in _STRUCTURE & set(exif):
        del exif[tag]
    return _encoded(exif).tobytes() if exif else b""


def _encoded(exif: Image.Exif) -> Image.Exif:
    """Pillow reads text as Latin-1 and writes ASCII; bytes it writes as they are."""
    for tag, value in exif.items():
        if isinstance(value, str) and not value.isascii():
            exif[tag] = value.encode("latin-1")
    return exif


def _can_be_written(metadata: dict[str, Any], written_as: str) -> bool:
    try:
        options = save_options(resized(metadata, 1, 1), written_as)
        Image.new("L", (1, 1)).save(io.BytesIO(), written_as, **options)
    except Exception:
        # Too long for the format, or damaged.
        return False
    return True


def resized(metadata: dict[str, Any], width: int, height: int, by: int = 1) -> dict[str, Any]:
    """Metadata for an upright picture of width x height pixels that is `by` times smaller than it was."""
    metadata = dict(metadata)
    if "exif" in metadata:
        metadata["exif"] = rewritten(metadata["exif"], width, height, by)
    if "dpi" in metadata:
        metadata["dpi"] = tuple(value / by for value in metadata["dpi"])
    if "xmp" in metadata:
        values = {"tiff:Orientation": 1, "tiff:ImageWidth": width, "tiff:ImageLength": height}
        values |= {"exif:PixelXDimension": width, "exif:PixelYDimension": height}
        for name, value in values.items():
            pattern = rb"""(%s(?:\s*=\s*["']|>))\d+""" % name.encode()
            metadata["xmp"] = re.sub(pattern, rb"\g<1>%d" % value, metadata["xmp"])
    return metadata


def save_options(metadata: dict[str, Any], written_as: str) -> dict[str, Any]:
    """What Pillow's save() is told for a format: metadata, and for TIFF the compression that it allows.

    Args:
        metadata: as `read_metadata` finds it.
        written_as: JPEG, PNG, TIFF or WEBP.
    """
    options = {name: value for name, value in metadata.items() if name in _KEPT[written_as]}
    if written_as == "PNG":
        options["pnginfo"] = _chunks(options)
    elif written_as == "TIFF":
        exif = Image.Exif()
        exif.load(options.get("exif", b""))
        _encoded(exif)
        if _EXIF in exif and _INTEROP in (directory := exif.get_ifd(_EXIF)):
            # Else the place that it has in this block.
            directory[_INTEROP] = exif.get_ifd(_INTEROP)
        if xmp := options.pop("xmp", None):
            exif[_XMP] = xmp
        options["exif"] = exif
        if not {_EXIF, _GPS} & set(exif):
            # Pillow cannot compress with the directories of a camera or of a place on Earth.
            options["compression"] = "tiff_deflate"
    return options


def _chunks(options: dict[str, Any]) -> PngInfo:
    """Takes what PNG holds in chunks out of the options."""
    chunks = PngInfo()
    for key, value in options.pop("text", {}).items():
        if isinstance(value, iTXt):
            chunks.add_itxt(key, value, value.lang or "", value.tkey or "")
        else:
            chunks.add_text(key, value)
    if xmp := options.pop("xmp", None):
        chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
    if chromaticity := options.pop("chromaticity", None):
        chunks.add(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in chromaticity)))
    if gamma := options.pop("gamma", None):
        chunks.add(b"gAMA", struct.pack(">I", round(gamma * 100_000)))
    if (intent := options.pop("srgb", None)) is not None:
        chunks.add(b"sRGB", bytes([intent]))
    return chunks

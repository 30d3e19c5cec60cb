"""What a picture carries is in its result, true of it, or said to be lost."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from model.photo.picture import encoded, read_picture

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" tiff:ImageWidth="40" '
    b'xmp:Rating="5"><exif:PixelYDimension>30</exif:PixelYDimension></rdf:Description></x:xmpmeta>'
)
EXIF, GPS, WIDTH, HEIGHT, RESOLUTION, ORIENTATION = 0x8769, 0x8825, 0xA002, 0xA003, 0x11A, 0x112
ARTIST = "José".encode()
RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def camera() -> Image.Exif:
    exif = Image.Exif()
    exif[0x10F], exif[0x13B], exif[ORIENTATION], exif[RESOLUTION] = "A maker", ARTIST, 6, 300.0
    exif[EXIF] = {WIDTH: 40, HEIGHT: 30, 0x9003: "2024:01:01 00:00:00"}
    exif[GPS] = {1: "N"}
    return exif


def restored(path, by: int = 1) -> tuple[Image.Image, str]:
    """The result for a file with its pixels as they are, and the notes."""
    picture = read_picture(path).reduced(by)
    result = Image.open(io.BytesIO(encoded(path, picture)))
    result.load()
    return result, "; ".join(picture.notes)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_what_a_camera_and_a_darkroom_write_is_kept_and_true(tmp_path, suffix):
    path = tmp_path / f"photo{suffix}"
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    exif = Image.Exif()
    exif.load(camera().tobytes())
    exif[0x13B] = ARTIST
    if suffix == ".tif":
        exif[700] = XMP
    options = {".png": {"pnginfo": texts}, ".tif": {}}.get(suffix, {"xmp": XMP})
    Image.fromarray(RGB).save(path, exif=exif, icc_profile=b"a profile", **options)
    result, notes = restored(path)
    assert notes == ""
    assert result.size == (30, 40)
    found = result.getexif()
    assert found[0x10F] == "A maker"
    assert found[0x13B].encode("latin-1") == ARTIST
    assert found.get(ORIENTATION, 1) == 1
    assert found[RESOLUTION] == 300
    assert dict(found.get_ifd(EXIF)) == {WIDTH: 30, HEIGHT: 40, 0x9003: "2024:01:01 00:00:00"}
    assert found.get_ifd(GPS)[1] == "N"
    assert result.info["icc_profile"] == b"a profile"
    # Pillow takes the orientation out of a TIFF's as soon as it has turned it.
    upright = b"" if suffix == ".tif" else b'tiff:Orientation="1"'
    wanted = XMP.replace(b'tiff:Orientation="6"', upright).replace(b'Width="40"', b'Width="30"')
    assert result.info["xmp"] == wanted.replace(b">30<", b">40<")


def test_comments_texts_and_gamma_are_kept(tmp_path):
    image = Image.fromarray(RGB)
    image.save(tmp_path / "photo.jpg", comment=b"a comment")
    result, notes = restored(tmp_path / "photo.jpg")
    assert (result.info["comment"], notes) == (b"a comment", "")
    texts = PngInfo()
    texts.add_text("Title", "a title")
    texts.add_itxt("Author", "写真", "zh", "作者")
    texts.add(b"gAMA", struct.pack(">I", 100_000))
    texts.add(b"cHRM", struct.pack(">8I", *range(30_000, 30_008)))
    texts.add(b"sRGB", b"\1")
    image.save(tmp_path / "photo.png", pnginfo=texts)
    result, notes = restored(tmp_path / "photo.png")
    assert (result.text, notes) == ({"Title": "a title", "Author": "写真"}, "")
    assert (result.text["Author"].lang, result.text["Author"].tkey) == ("zh", "作者")
    assert (result.info["gamma"], result.info["srgb"], result.info["chromaticity"][7]) == (1.0, 1, 0.30007)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbagegarbage", b"Exif\0\0II*\0\xff\xff\0\0garbage"])
def test_damaged_exif_is_said_to_be_lost(tmp_path, suffix, exif):
    Image.fromarray(RGB).save(tmp_path / f"photo{suffix}", exif=exif)
    result, notes = restored(tmp_path / f"photo{suffix}")
    assert notes == "not kept: its EXIF, which is damaged"
    assert result.size == (40, 30)
    assert "exif" not in result.info


def test_tags_of_another_kind_than_is_usual_are_kept(tmp_path):
    """As cameras write them; to Pillow they are errors when it writes them again."""
    entry = struct.pack("<HHI4s", 0x9000, 2, 4, b"0230")
    inner = struct.pack("<H", 1) + entry + bytes(4)
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, EXIF, 4, 1, 26, 0) + inner
    for orientation in (None, 6):
        if orientation:
            outer = struct.pack("<HHII", ORIENTATION, 3, 1, 6) + struct.pack("<HHII", EXIF, 4, 1, 38)
            exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + outer + bytes(4) + inner
        Image.fromarray(RGB).save(tmp_path / "photo.jpg", exif=exif)
        result, notes = restored(tmp_path / "photo.jpg")
        assert notes == ""
        assert result.size == ((30, 40) if orientation else (40, 30))
        assert entry in result.info["exif"]


def test_what_is_lost_is_said(tmp_path):
    data = bytearray(camera().tobytes())
    (count,) = struct.unpack_from(">H", data, 14)
    struct.pack_into(">I", data, 16 + 12 * count, len(data) - 6)
    Image.fromarray(RGB).save(tmp_path / "photo.jpg", exif=bytes(data) + struct.pack(">HI", 0, 0))
    whole = (tmp_path / "photo.jpg").read_bytes()
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x10\x1c\x02\x78\0\x0bmy headline"
    segment = b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc
    (tmp_path / "photo.jpg").write_bytes(whole[:2] + segment + whole[2:])
    _, notes = restored(tmp_path / "photo.jpg")
    assert (
        notes == "not kept: its IPTC and Photoshop data, the thumbnail in its EXIF, which shows it as it was"
    )


def test_what_another_format_cannot_hold_is_said(tmp_path):
    texts = PngInfo()
    texts.add_text("Title", "a title")
    exif = camera()
    exif[0x10E] = "long " * 20_000
    Image.fromarray(RGB).save(tmp_path / "photo.jpg", "PNG", pnginfo=texts, exif=exif)
    result, notes = restored(tmp_path / "photo.jpg")
    assert result.format == "JPEG"
    assert notes == "not kept: its texts, its EXIF"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_resolution_follows_the_size(tmp_path, suffix):
    exif = camera()
    Image.fromarray(RGB).save(tmp_path / f"photo{suffix}", exif=exif.tobytes(), dpi=(300, 150))
    result, _ = restored(tmp_path / f"photo{suffix}", by=3)
    assert result.size == (10, 14)
    assert [round(value) for value in result.info["dpi"]] == [100, 50]
    assert result.getexif()[RESOLUTION] == 100
    assert result.getexif().get_ifd(EXIF)[WIDTH] == 10


@pytest.mark.parametrize("exif", [b"", camera().tobytes()])
def test_no_resolution_is_made_up(tmp_path, exif):
    Image.fromarray(RGB).save(tmp_path / "photo.tif")
    result, notes = restored(tmp_path / "photo.tif")
    assert notes == ""
    assert RESOLUTION not in result.tag_v2
    Image.fromarray(RGB).save(tmp_path / "photo.jpg", exif=exif)
    result, _ = restored(tmp_path / "photo.jpg")
    assert result.info["jfif_unit"] == 0

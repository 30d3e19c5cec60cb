"""Blocks of EXIF: what must change does, in place, and all else stays byte for byte."""

import random
import struct

import pytest
from PIL import Image

from model.photo.exif import has_thumbnail, rewritten

NOTE = b"a maker's note that counts from the block's beginning"
EXIF, ORIENTATION, WIDTH, HEIGHT, RESOLUTION = 0x8769, 0x112, 0xA002, 0xA003, 0x11A


def block(order: str = ">", thumbnail: bool = False) -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x10F], exif[ORIENTATION], exif[RESOLUTION] = "A maker of cameras", 6, 300.0
    exif[EXIF] = {WIDTH: 40, HEIGHT: 30, 0x927C: NOTE}
    data = bytearray(exif.tobytes())
    if thumbnail:
        (count,) = struct.unpack_from(order + "H", data, 14)
        struct.pack_into(order + "I", data, 16 + 12 * count, len(data) - 6)
        data += struct.pack(order + "HHHIII", 1, 0x103, 3, 1, 6, 0)
    return bytes(data)


def read(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(data)
    return exif


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("header", [True, False])
def test_only_what_must_change_does(order, header):
    before = block(order)
    after = rewritten(before if header else before[6:], 10, 20, by=3)
    exif = read(after)
    assert exif[ORIENTATION] == 1
    assert exif[RESOLUTION] == 100
    assert (exif.get_ifd(EXIF)[WIDTH], exif.get_ifd(EXIF)[HEIGHT]) == (10, 20)
    assert len(after) == len(before)
    assert after.index(NOTE) == before.index(NOTE)
    changed = [place for place in range(len(before)) if before[place] != after[place]]
    # The low bytes of orientation, two sizes, and the resolution's denominator.
    assert len(changed) == 4


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_is_cut_off(order):
    assert not has_thumbnail(block(order))
    data = block(order, thumbnail=True)
    assert has_thumbnail(data)
    after = rewritten(data, 10, 20)
    assert not has_thumbnail(after)
    assert read(after).get_ifd(EXIF)[0x927C] == NOTE


@pytest.mark.parametrize(
    "damaged",
    [b"", b"Exif\0\0garbagegarbage", b"Exif\0\0II*\0\xff\xff\0\0garbage", b"MM\0*", block()[:40]],
)
def test_a_damaged_block_is_refused(damaged):
    with pytest.raises(ValueError, match="damaged EXIF"):
        rewritten(damaged, 10, 20)


def test_no_damage_is_anything_but_refused():
    drawn = random.Random(0)
    for _ in range(500):
        data = bytearray(block(drawn.choice("<>"), thumbnail=True))
        for _ in range(drawn.choice([1, 2, 6])):
            data[drawn.randrange(len(data))] = drawn.choice([0, 255, drawn.randrange(256)])
        try:
            assert len(rewritten(bytes(data), 10, 20, 3)) >= len(data) - 6
        except ValueError as error:
            assert "damaged EXIF" in str(error)

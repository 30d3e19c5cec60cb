"""Reading photographs: every format, the right way up, and what happens to broken ones."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.data.luma import luma_uint8
from model.data.photographs import UnreadablePhotograph, find_photographs, load_luma, read_luma
from model.errors import UserError
from tests.photographs import scikit_image_photograph


@pytest.fixture
def rgb() -> np.ndarray:
    with Image.open(scikit_image_photograph("coffee.png")) as picture:
        return np.asarray(picture)[100:160, 200:290].copy()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF", ".webp"])
def test_lossless_formats_are_read_exactly(tmp_path, rgb, suffix):
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(rgb).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    assert np.array_equal(read_luma(path), luma_uint8(rgb))


def test_jpeg_is_read_closely(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "photo.jpg", quality=98, subsampling=0)
    difference = read_luma(tmp_path / "photo.jpg").astype(int) - luma_uint8(rgb)
    assert abs(difference).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, rgb, orientation):
    """The file holds what the camera saw; upright it must be the photograph."""
    stored = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, 1),
        7: np.rot90(rgb, 2).transpose(1, 0, 2),
        8: np.rot90(rgb, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(read_luma(tmp_path / "photo.png"), luma_uint8(rgb))


def test_damaged_exif_leaves_the_pixels(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "photo.png", exif=b"Exif\0\0garbagegarbage")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_luma(tmp_path / "photo.png"), luma_uint8(rgb))


@pytest.mark.parametrize("error", [TypeError, struct.error, KeyError, MemoryError])
def test_whatever_a_decoder_stumbles_over_is_one_line(tmp_path, rgb, monkeypatch, error):
    Image.fromarray(rgb).save(tmp_path / "photo.png")

    def stumble(_):
        raise error("stumbled")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", stumble)
    with pytest.raises(UnreadablePhotograph, match=r"stumbled|not enough memory"):
        read_luma(tmp_path / "photo.png")


def test_sixteen_bit_grey_is_rounded(tmp_path):
    values = np.array([[0, 128, 129, 257, 65535, 32896]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    # Level v of 8 bits is 257 v of 16; the nearest is taken.
    assert read_luma(tmp_path / "grey.png")[0].tolist() == [0, 0, 1, 1, 255, 128]


def test_grey_and_palette_and_bilevel(tmp_path, rgb):
    grey = Image.fromarray(luma_uint8(rgb))
    grey.save(tmp_path / "grey.png")
    assert np.array_equal(read_luma(tmp_path / "grey.png"), np.asarray(grey))
    palette = Image.fromarray(rgb).quantize(32)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_luma(tmp_path / "palette.png"), luma_uint8(np.asarray(palette.convert("RGB"))))
    Image.fromarray(rgb).convert("1").save(tmp_path / "bilevel.png")
    assert set(np.unique(read_luma(tmp_path / "bilevel.png"))) == {0, 255}


def test_what_is_transparent_is_shown_on_white(tmp_path):
    pixels = np.array([[[10, 10, 10, 255], [10, 10, 10, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    assert read_luma(tmp_path / "alpha.png")[0].tolist() == [10, 255, 204]


def test_floating_point_is_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match="floating-point"):
        read_luma(tmp_path / "float.tif")


def test_folders_are_searched_in_a_fixed_order(photographs):
    names = [path.relative_to(photographs).as_posix() for path in find_photographs(photographs)]
    assert names == ["a.png", "b.jpg", "more/c.webp"]
    twice = find_photographs([photographs / "b.jpg", photographs])
    assert [path.name for path in twice] == ["b.jpg", "a.png", "c.webp"]


def test_broken_photographs_are_named_and_left_out(tmp_path, photographs):
    whole = (photographs / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("this is no picture")
    (tmp_path / "empty.webp").touch()
    (tmp_path / "good.png").write_bytes(whole)
    skipped: dict[str, str] = {}
    read: list[Path] = []
    kept = load_luma(
        find_photographs(tmp_path),
        on_skip=lambda path, reason: skipped.update({path.name: reason}),
        on_read=read.append,
    )
    assert [photograph.path.name for photograph in kept] == ["good.png"]
    assert set(skipped) == {"cut.png", "text.jpg", "empty.webp"}
    assert "truncated" in skipped["cut.png"]
    assert "not a picture" in skipped["text.jpg"]
    assert len(read) == 4


def test_small_photographs_are_left_out(photographs):
    skipped: list[str] = []
    with pytest.raises(
        UserError, match=r"none of 3 photographs can be used, e\.g\. a\.png: 160 x 144 is smaller"
    ):
        load_luma(
            find_photographs(photographs), smallest=145, on_skip=lambda path, reason: skipped.append(reason)
        )
    assert len(skipped) == 3


def test_empty_and_missing_folders_are_errors(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds no photographs; looked for .*\.png"):
        find_photographs(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        find_photographs(tmp_path / "nowhere")

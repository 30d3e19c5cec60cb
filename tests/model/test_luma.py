"""Luma, in whole numbers and against the paper's published crops."""

import numpy as np
from PIL import Image

from model.data.crops import central_crop
from model.data.luma import luma_float, luma_uint8
from model.data.photographs import read_luma
from tests.photographs import data_folder


def test_grey_keeps_its_value():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert luma_uint8(grey)[0].tolist() == list(range(256))


def test_is_truncated_exactly():
    rgb = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    expected = [[(299 * int(r) + 587 * int(g) + 114 * int(b)) // 1000 for r, g, b in row] for row in rgb]
    assert luma_uint8(rgb).tolist() == expected


def test_range_is_full():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    assert luma_uint8(colours)[0].tolist() == [0, 255, 76, 149, 29]


def test_float_luma_truncates_to_the_integer_one():
    rgb = np.random.default_rng(1).integers(256, size=(64, 64, 3), dtype=np.uint8)
    exact = rgb.astype(np.float64) @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(luma_float(rgb), exact, atol=2e-7)


def test_central_crops_are_the_published_ones():
    """No known recipe gives every published pixel: at least 98.3 % are equal, the others one level apart."""
    kodak, published = data_folder("kodak"), data_folder("mmsp2024") / "MMSP_Noisy_Blurry"
    for name in ("kodim01", "kodim03", "kodim04", "kodim08", "kodim18", "kodim21"):
        ours = central_crop(read_luma(kodak / f"{name}.png"), 128).astype(int)
        theirs = np.asarray(Image.open(published / f"{name}.png")).astype(int)
        assert (ours == theirs).mean() >= 0.983, name
        assert abs(ours - theirs).max() == 1, name

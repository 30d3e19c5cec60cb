"""Pictures of every kind: read as what they are, made smaller, written as they were."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from model.data.photographs import read_luma
from model.errors import UserError
from model.photo.picture import Picture, encoded, read_picture, undecoded

RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".png"])
def test_of_several_frames_the_first_is_said_to_be_restored(tmp_path, suffix):
    path = tmp_path / f"photo{suffix}"
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], **({"lossless": True} if "w" in suffix else {})
    )
    picture = read_picture(path)
    assert picture.notes == ("only the first of its frames was restored",)
    assert np.array_equal(picture.pixels, RGB)


def test_a_damaged_second_frame_leaves_the_first_one(tmp_path):
    path = tmp_path / "photo.tif"
    Image.fromarray(RGB).save(path, save_all=True, append_images=[Image.fromarray(RGB)])
    with Image.open(path) as file:
        file.seek(1)
        place = file.tag_v2._offset
    path.write_bytes(path.read_bytes()[: place + 4])
    assert np.array_equal(read_picture(path).pixels, RGB)


def test_eight_bits_are_not_taken_for_sixteen(tmp_path):
    """Though the tile of a compressed TIFF holds the place of its directory, here with a 16 in it."""
    path = tmp_path / "photo.tif"
    for width in range(1, 40):
        Image.fromarray(RGB[:, :width]).save(path, compression="tiff_lzw")
        with Image.open(path) as file:
            place = str(file.tile[0][3])
        if "16" in place:
            break
    assert "16" in place
    assert read_picture(path).notes == ()


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bits_in_planes_are_read_right_or_refused(tmp_path, compression):
    planes = np.random.default_rng(0).integers(0, 65536, (3, 20, 30), dtype=np.uint16)
    path = tmp_path / "photo.tif"
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", compression=compression)
    if compression is None:
        for read in (read_picture, read_luma):
            with pytest.raises(UserError, match="16-bit colour in separate planes cannot be read"):
                read(path)
    else:
        assert np.abs(read_picture(path).pixels - (planes.transpose(1, 2, 0) / 257)).max() <= 1


def test_sixteen_bits_with_white_at_zero_are_turned_over(tmp_path):
    levels = np.arange(0, 60_000, 100, dtype=np.uint16).reshape(20, 30)
    tifffile.imwrite(tmp_path / "photo.tif", 65535 - levels, photometric="miniswhite")
    picture = read_picture(tmp_path / "photo.tif")
    assert np.array_equal(picture.pixels[..., 0], levels)
    with Image.open(io.BytesIO(encoded(tmp_path / "photo.tif", picture))) as result:
        assert np.array_equal(np.asarray(result), levels)
    assert np.array_equal(read_luma(tmp_path / "photo.tif"), (levels.astype(int) + 128) // 257)


def test_a_transparent_level_of_sixteen_bits_is_said_to_be_lost(tmp_path):
    Image.fromarray(np.full((20, 30), 40_000, dtype=np.uint16)).save(
        tmp_path / "photo.png", transparency=40_000
    )
    assert read_picture(tmp_path / "photo.png").notes == ("not kept: the level that is transparent",)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_what_is_transparent_does_not_colour_its_surroundings(depth):
    white = np.iinfo(depth).max
    pixels = np.full((6, 6, 3), 200, dtype=depth)
    alpha = np.full((6, 6), 255, dtype=np.uint8)
    # Black that nobody sees, and a faint pixel in a square of its own.
    pixels[:3, :2], alpha[:3, :2] = 0, 0
    pixels[3:, :3], alpha[3:, :3] = white, 0
    pixels[4, 1], alpha[4, 1] = 100, 1
    small = Picture(pixels, alpha).reduced(3)
    assert (small.pixels[0] == 200).all()
    assert (small.pixels[1, 0] == 100).all()
    assert small.alpha.tolist() == [[85, 255], [0, 255]]
    # Where all is transparent, the hidden colours count alike.
    assert (Picture(pixels, np.zeros_like(alpha)).reduced(3).pixels[0, 0] == 67).all()


@pytest.mark.parametrize("options", [{}, {"icc_profile": b"a profile", "exif": b"MM\0*"}, {"save_all": True}])
def test_a_webp_without_loss_stays_one(tmp_path, options):
    path = tmp_path / "photo.webp"
    image = Image.fromarray(RGB)
    image.putalpha(Image.fromarray(RGB[..., 0] // 128 * 255))
    for lossless in (True, False):
        more = {"append_images": [image.rotate(180)]} if "save_all" in options else {}
        image.save(path, lossless=lossless, exact=True, **more, **options)
        picture = read_picture(path)
        assert picture.lossless == lossless
        with Image.open(io.BytesIO(encoded(path, picture))) as result:
            assert np.array_equal(np.asarray(result)[..., :3], picture.pixels) == lossless


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.heic", ".heic is none of .jpeg, .jpg, .png, .tif, .tiff, .webp; convert it to TIFF"),
        ("x.gif", ".gif is none of"),
        ("x", "a name without a suffix has none of"),
    ],
)
def test_what_cannot_be_written_is_not_read(tmp_path, name, message):
    Image.fromarray(RGB).save(tmp_path / name, "PNG")
    with pytest.raises(UserError, match=message):
        read_picture(tmp_path / name)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "P"])
def test_an_undecoded_picture_says_its_size(tmp_path, mode):
    pixels = RGB[..., 0].astype(np.uint16) if mode == "I;16" else RGB
    image = Image.fromarray(pixels)
    (image if mode in ("I;16", "RGB") else image.convert(mode)).save(tmp_path / "photo.png")
    assert undecoded(tmp_path / "photo.png") == (40, 30, {"L": 1, "I;16": 2}.get(mode, 4))

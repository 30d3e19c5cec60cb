"""The photo tool: luma restored, all else kept, originals untouched."""

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from model import shipped
from model.__main__ import COMMANDS
from model.command_line import main
from model.data.luma import luma_float
from model.errors import UserError
from model.evaluation.methods import method_from_weights
from model.photo.command import run
from model.photo.config import DeblurConfig
from model.photo.picture import Picture, read_picture, write_picture
from model.photo.restore import memory_estimate, restore_picture
from model.weights import load_network, save_weights
from tests.photographs import scikit_image_photograph


class Brighter:
    """Adds ten levels of 255 to luma."""

    name = "brighter"

    def restore(self, blurred):
        return blurred + 10 / 255


@pytest.fixture
def rgb() -> np.ndarray:
    with Image.open(scikit_image_photograph("coffee.png")) as picture:
        return np.asarray(picture)[90:187, 200:311].copy()


def deblur(tmp_path: Path, weights: Path, *originals: Path, **changes) -> int:
    return run(
        DeblurConfig(
            photographs=list(originals), weights=weights, out=tmp_path / "out", device="cpu", **changes
        )
    )


def test_luma_changes_and_chroma_stays(rgb, tiny_weights):
    rgb = rgb.clip(80, 170)
    network = method_from_weights(tiny_weights, torch.device("cpu"))
    restored = restore_picture(Picture(rgb), network).pixels.astype(int)
    unclipped = (restored > 0).all(2) & (restored < 255).all(2)
    assert unclipped.mean() > 0.5
    # R - G and B - G fix Cb and Cr; equal differences are equal chroma.
    for channel in (0, 2):
        before = rgb[..., channel].astype(int) - rgb[..., 1]
        after = restored[..., channel] - restored[..., 1]
        assert np.array_equal(before[unclipped], after[unclipped])
    wanted = network.restore(torch.from_numpy(luma_float(rgb))[None, None])[0, 0].clamp(0, 1).numpy()
    difference = luma_float(restored.astype(np.uint8)) - wanted
    # The change of luma is rounded to whole levels.
    assert abs(difference[unclipped]).max() <= 0.5001 / 255
    assert abs(restored - rgb).max() > 3


def test_grey_follows_the_network_and_keeps_its_depth():
    grey = np.arange(0, 60_000, 100, dtype=np.uint16).reshape(20, 30, 1)
    restored = restore_picture(Picture(grey), Brighter())
    assert restored.pixels.dtype == np.uint16
    assert np.array_equal(restored.pixels, grey + 2570)


def test_colours_are_clipped_not_wrapped():
    light = np.full((8, 8, 3), (250, 100, 240), dtype=np.uint8)
    assert restore_picture(Picture(light), Brighter()).pixels[0, 0].tolist() == [255, 110, 250]


def test_tiles_give_the_same_as_the_whole(rgb, tiny_weights):
    network = method_from_weights(tiny_weights, torch.device("cpu"))
    whole = restore_picture(Picture(rgb), network, tile=1024, overlap=0)
    # The tiny network sees 7 pixels far, less than the overlap.
    tiled = restore_picture(Picture(rgb), network, tile=32, overlap=16)
    assert abs(tiled.pixels.astype(int) - whole.pixels).max() <= 1
    assert (tiled.pixels == whole.pixels).mean() > 0.999


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (97, 111)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "I;16", "1", "CMYK"])
def test_any_mode_and_size_keeps_size_and_kind(tmp_path, tiny_weights, rgb, size, mode):
    height, width = size
    pixels = np.resize(rgb, (height, width, 3))
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels).convert(mode.removesuffix("A") if mode in ("RGBA", "LA") else mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(Image.fromarray(pixels[..., 1]))
    suffix = ".tif" if mode == "CMYK" else ".png"
    image.save(tmp_path / f"photo{suffix}")
    assert deblur(tmp_path, tiny_weights, tmp_path / f"photo{suffix}") == 0
    with Image.open(tmp_path / "out" / f"photo_deblurred{suffix}") as result:
        assert result.size == (width, height)
        assert result.mode == {"P": "RGB", "1": "L", "CMYK": "RGB"}.get(mode, mode)
        if "A" in mode:
            assert np.array_equal(np.asarray(result)[..., -1], pixels[..., 1])


def test_metadata_survives_and_orientation_is_applied(tmp_path, tiny_weights, rgb):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A maker of cameras"
    original = tmp_path / "photo.jpg"
    Image.fromarray(rgb).save(
        original, exif=exif, icc_profile=b"a colour profile", dpi=(300, 300), quality=95
    )
    before = original.read_bytes()
    assert deblur(tmp_path, tiny_weights, original) == 0
    with Image.open(tmp_path / "out" / "photo_deblurred.jpg") as result:
        # Turned once: the orientation must not turn it again.
        assert result.size == (rgb.shape[0], rgb.shape[1])
        assert result.getexif().get(0x0112, 1) == 1
        assert result.getexif()[0x010F] == "A maker of cameras"
        assert result.info["icc_profile"] == b"a colour profile"
        assert result.info["dpi"] == (300, 300)
    assert original.read_bytes() == before


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"])
def test_every_format_is_written_and_read_back(tmp_path, rgb, suffix):
    write_picture(tmp_path / f"photo{suffix}", Picture(rgb), quality=100)
    difference = read_picture(tmp_path / f"photo{suffix}").pixels.astype(int) - rgb
    assert abs(difference).mean() < (2 if suffix in (".jpg", ".jpeg", ".webp") else 1e-9)


def test_originals_and_results_are_never_replaced_unasked(tmp_path, tiny_weights, rgb):
    original = tmp_path / "photo.png"
    Image.fromarray(rgb).save(original)
    before = original.read_bytes()
    with pytest.raises(UserError, match="one of the originals"):
        run(DeblurConfig(photographs=[original], weights=tiny_weights, out=tmp_path, suffix=""))
    with pytest.raises(UserError, match="would replace the originals"):
        run(DeblurConfig(photographs=[original], weights=tiny_weights, suffix="", overwrite=True))
    assert run(DeblurConfig(photographs=[original], weights=tiny_weights)) == 0
    assert (tmp_path / "photo_deblurred.png").is_file()
    with pytest.raises(UserError, match="already there; --overwrite replaces it"):
        run(DeblurConfig(photographs=[original], weights=tiny_weights))
    assert run(DeblurConfig(photographs=[original], weights=tiny_weights, overwrite=True)) == 0
    assert original.read_bytes() == before


def test_broken_picture_is_named_and_the_others_are_done(tmp_path, tiny_weights, rgb, capsys):
    Image.fromarray(rgb).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    assert deblur(tmp_path, tiny_weights, tmp_path / "bad.jpg", tmp_path / "good.png") == 2
    printed = capsys.readouterr()
    assert "bad.jpg: not a picture" in printed.err
    assert "1 of 2 pictures restored" in printed.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good_deblurred.png"]


def test_damaged_exif_ends_no_batch(tmp_path, tiny_weights, rgb, capsys):
    for name, exif in (("bad.jpg", b"Exif\0\0garbagegarbage"), ("good.jpg", b"")):
        Image.fromarray(rgb).save(tmp_path / name, exif=exif)
    assert deblur(tmp_path, tiny_weights, tmp_path / "bad.jpg", tmp_path / "good.jpg") == 0
    assert "bad.jpg: not kept: its EXIF, which is damaged" in capsys.readouterr().out
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("name", ["photo.jpg", "photo.heic", "photo"])
def test_what_cannot_be_written_fails_before_the_work(tmp_path, tiny_weights, rgb, capsys, monkeypatch, name):
    monkeypatch.setattr("model.photo.command.restore_picture", lambda *_, **__: pytest.fail("worked"))
    Image.fromarray(rgb).convert("RGBA").save(tmp_path / name, "PNG")
    assert deblur(tmp_path, tiny_weights, tmp_path / name) == 2
    reason = {"photo.jpg": "name it .png or .tif"}.get(name, "convert it to TIFF, PNG or JPEG first")
    assert capsys.readouterr().err.rstrip().endswith(reason)


def test_memory_is_told_of_before_it_is_taken(tmp_path, tiny_weights, rgb, capsys, monkeypatch):
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    assert deblur(tmp_path, tiny_weights, tmp_path / "photo.png") == 0
    assert "GiB" not in capsys.readouterr().out

    def stop(path):
        raise UserError("stopped")

    monkeypatch.setattr("model.photo.command.undecoded", lambda path: (30_000, 20_000, 4))
    monkeypatch.setattr("model.photo.command.read_picture", stop)
    assert deblur(tmp_path, tiny_weights, tmp_path / "photo.png", overwrite=True) == 2
    assert "photo.png: about 9.2 GiB of memory beside the program" in capsys.readouterr().out


def test_the_picture_counts_that_is_made_smaller():
    whole = memory_estimate(6000, 8000, 4, 1, tile=64, overlap=32)
    assert memory_estimate(6000, 8000, 4, 4, tile=64, overlap=32) > 0.9 * whole > 400_000_000
    assert memory_estimate(3000, 4000, 4, 4, tile=1024, overlap=0) > 750 * 1000 * 400


@pytest.mark.parametrize("named", [True, False])
def test_a_name_that_is_no_text_ends_no_batch(tmp_path, tiny_weights, rgb, monkeypatch, named):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "photos").mkdir()
    Image.fromarray(rgb).save(tmp_path / "photos" / name)
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", printed)
    source = tmp_path / "photos" / (name if named else "")
    words = ["deblur", str(source), "--weights", str(tiny_weights), "--device", "cpu"]
    assert main(COMMANDS, words) == 0
    printed.flush()
    assert rb"caf\udce9_deblurred.png" in printed.buffer.getvalue()


@pytest.mark.parametrize(
    ("crop", "changes", "expected"),
    [
        (128, {}, (64, 32)),
        (64, {}, (32, 16)),
        (96, {}, (48, 16)),
        (0, {}, (768, 64)),
        (32, {}, (768, 64)),
        (128, {"tile": 256}, (256, 32)),
        (128, {"tile": 256, "overlap": 0}, (256, 0)),
        (0, {"overlap": 16}, (768, 16)),
    ],
)
def test_a_network_sees_squares_of_the_size_it_was_trained_on(crop, changes, expected):
    tile, overlap = DeblurConfig(**changes).tiling(crop)
    assert (tile, overlap) == expected
    if not changes and crop >= 64:
        assert tile + 2 * overlap <= crop


def test_the_crops_are_those_of_the_card(tmp_path, tiny_weights, rgb, capsys):
    network, card = load_network(tiny_weights)
    card.training = {"config": {"crop": 64}}
    save_weights(tmp_path / "crops.safetensors", network, card)
    restored(tmp_path, rgb, "--weights", tmp_path / "crops.safetensors")  # 111 x 97
    assert "111 x 97, 16 tiles" in capsys.readouterr().out
    restored(tmp_path, rgb, "--weights", tiny_weights)
    assert "111 x 97, 1 tile\n" in capsys.readouterr().out


def test_two_originals_of_one_name_are_refused(tmp_path, tiny_weights, rgb):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(rgb).save(tmp_path / folder / "photo.png")
    with pytest.raises(UserError, match="would both become"):
        deblur(tmp_path, tiny_weights, tmp_path / "one", tmp_path / "two")


def test_deep_colour_is_said_to_lose_bits(tmp_path, tiny_weights, capsys):
    tifffile.imwrite(tmp_path / "deep.tif", np.full((20, 30, 3), 40_000, dtype=np.uint16), photometric="rgb")
    assert deblur(tmp_path, tiny_weights, tmp_path / "deep.tif") == 0
    assert "16-bit colour was read and written with 8 bits" in capsys.readouterr().out


def restored(tmp_path, rgb, *words: object) -> np.ndarray:
    """The result of the command line for one photograph."""
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    command = ["deblur", tmp_path / "photo.png", "--out", tmp_path / "out", "--device", "cpu", "--overwrite"]
    assert main(COMMANDS, list(map(str, [*command, *words]))) == 0
    return np.asarray(Image.open(tmp_path / "out" / "photo_deblurred.png"))


@pytest.mark.parametrize(
    ("blur", "words"), [("focus", "up to a disc blur of radius 4"), ("box", "a 5 x 5 box blur")]
)
def test_without_weights_those_that_come_along_are_used_and_named(
    tmp_path, shipped_folder, rgb, capsys, blur, words
):
    found = restored(tmp_path, rgb, *(["--blur", blur] if blur == "box" else []))
    dial = shipped.DIALS[blur]
    assert capsys.readouterr().out.splitlines()[0] == (
        f"weights: sharpness {dial.default:g} between {dial.soft} (0) and {dial.sharp} (1), "
        f"which come with this program: takes away {words}, nothing wider and no motion"
    )
    assert np.array_equal(found, restored(tmp_path, rgb, "--blur", blur, "--sharpness", dial.default))
    assert not np.array_equal(found, rgb)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_a_picture_can_be_made_smaller_first(tmp_path, tiny_weights, rgb, mode):
    source = Image.fromarray(rgb)  # 111 x 97
    if mode == "I;16":
        source = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
    elif mode == "RGBA":
        source.putalpha(source.convert("L"))
    else:
        source = source.convert(mode)
    source.save(tmp_path / "photo.png")
    assert deblur(tmp_path, tiny_weights, tmp_path / "photo.png", reduce=3) == 0
    found = Image.open(tmp_path / "out" / "photo_deblurred.png")
    assert (found.mode, found.size) == (mode, (37, 33))
    whole = read_picture(tmp_path / "photo.png")
    small = whole.reduced(3)
    # At the bottom, where squares are cut off, the last row counts for those that are missing.
    # Colours count as much as they are opaque.
    weights = np.ones((97, 111)) if whole.alpha is None else whole.alpha.astype(float)
    weighted = weights * whole.pixels[..., 0]
    means, weight = (values[:96].reshape(32, 3, 37, 3).mean((1, 3)) for values in (weighted, weights))
    assert np.abs(small.pixels[:32, :, 0] - means / weight).max() <= 0.5
    edge, weight = (values[96:].reshape(1, 37, 3).mean(2) for values in (weighted, weights))
    edge /= weight
    assert np.abs(small.pixels[32:33, :, 0] - edge).max() <= 0.5
    if mode == "RGBA":
        assert np.array_equal(np.asarray(found)[..., 3], small.alpha)
    assert whole.reduced(1) is whole


def test_given_weights_are_named(tmp_path, tiny_weights, rgb, capsys):
    restored(tmp_path, rgb, "--weights", tiny_weights)
    assert capsys.readouterr().out.splitlines()[0] == f"weights: {tiny_weights}"


@pytest.mark.parametrize("blur", ["focus", "box"])
def test_sharpness_goes_from_one_network_to_the_other(tmp_path, shipped_folder, rgb, capsys, blur):
    dial = shipped.DIALS[blur]
    soft, sharp = (
        restored(tmp_path, rgb, "--weights", shipped_folder / f"{name}.safetensors")
        for name in (dial.soft, dial.sharp)
    )
    assert np.array_equal(restored(tmp_path, rgb, "--blur", blur, "--sharpness", 0), soft)
    assert np.array_equal(restored(tmp_path, rgb, "--blur", blur, "--sharpness", 1), sharp)
    capsys.readouterr()
    between = restored(tmp_path, rgb, "--blur", blur, "--sharpness", 0.5)
    assert not any(np.array_equal(between, end) for end in (soft, sharp))
    assert f"sharpness 0.5 between {dial.soft} (0) and {dial.sharp} (1)" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--blur", "box"], ["--sharpness", "0.5"]])
def test_without_the_weights_folder_there_is_one_line(tmp_path, monkeypatch, rgb, capsys, words):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "nowhere")
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    assert main(COMMANDS, ["deblur", str(tmp_path / "photo.png"), *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "the weights that come with this program are not there" in printed.err
    assert "with --weights FILE" in printed.err


@pytest.mark.parametrize("sharpness", [-0.5, 2.0, float("nan")])
def test_sharpness_out_of_range_is_named(sharpness):
    with pytest.raises(UserError, match=f"--sharpness must be from 0 to 1, got {sharpness}"):
        run(DeblurConfig(photographs=[Path("photo.jpg")], sharpness=sharpness))


def test_sharpness_is_no_dial_of_given_weights(tmp_path, tiny_weights):
    for given in ({"sharpness": 0.5}, {"blur": "box"}):
        (name, value), *_ = given.items()
        with pytest.raises(UserError, match=f"--{name} {value} is for the weights that come with this"):
            deblur(tmp_path, tiny_weights, tmp_path, **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": 100}, "--tile must be a positive multiple of 16, got 100"),
        ({"overlap": 5}, "--overlap must be 0 or a multiple of 16, got 5"),
        ({"reduce": 0}, "--reduce must be at least 1, which leaves the size as it is, got 0"),
        ({"quality": 0}, "--quality must be from 1 to 100, got 0"),
    ],
)
def test_impossible_values_are_named(tmp_path, tiny_weights, change, message):
    with pytest.raises(UserError, match=message):
        deblur(tmp_path, tiny_weights, tmp_path, **change)

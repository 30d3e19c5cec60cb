"""Which pixels are compared, for blurred and for photographed pairs."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from model.data.blur import box_blur
from model.data.photographs import find_photographs, load_luma
from model.errors import UserError
from model.evaluation.protocol import Protocol, match_pairs


def test_the_crop_is_blurred_not_the_photograph(photographs):
    photograph = load_luma(find_photographs(photographs / "a.png"))[0]
    pair = Protocol(crop=64).blur(photograph)
    assert np.array_equal(pair.sharp, photograph.luma[40:104, 48:112])
    whole = box_blur(torch.from_numpy(photograph.luma)[None, None])[0, 0].numpy()[40:104, 48:112]
    assert np.array_equal(pair.blurred[2:-2, 2:-2], whole[2:-2, 2:-2])
    assert not np.array_equal(pair.blurred, whole)


def test_whole_photographs(photographs):
    photograph = load_luma(find_photographs(photographs / "a.png"))[0]
    assert np.array_equal(Protocol(crop=0).blur(photograph).sharp, photograph.luma)


def test_description_states_what_changes_numbers():
    assert Protocol().describe(24) == (
        "central 128 x 128 luma crops of 24 photographs, "
        "blurred by a 5 x 5 box, mirrored border, 8 bits in and out"
    )
    assert "whole luma pictures of 1 photograph, blurred as photographed" in Protocol(crop=0).describe(
        1, real=True
    )


def test_pairs_are_matched_by_name(photographs, tmp_path):
    for name in ("a.png", "b.png", "c.tif"):
        Image.fromarray(np.full((144, 160), ord(name[0]), dtype=np.uint8)).save(tmp_path / name)
    pairs = list(match_pairs(find_photographs(photographs), tmp_path, 32, lambda path, reason: None))
    assert [(pair.name, int(pair.blurred[0, 0])) for pair in pairs] == [("a", 97), ("b", 98), ("c", 99)]
    assert {pair.sharp.shape for pair in pairs} == {(32, 32)}


def test_pairs_that_do_not_match_are_named(photographs, tmp_path):
    sharp = find_photographs(photographs)
    shutil.copy(photographs / "a.png", tmp_path)
    with pytest.raises(UserError, match=r"2 of 3 photographs have no partner in .*, e\.g\. b\.jpg"):
        list(match_pairs(sharp, tmp_path, 32, lambda path, reason: None))
    Image.new("L", (160, 143)).save(tmp_path / "b.png")
    with pytest.raises(
        UserError, match=r"b\.jpg and its blurred partner differ in size: 160 x 144 and 160 x 143"
    ):
        list(match_pairs(sharp[:2], tmp_path, 32, lambda path, reason: None))
    Image.new("L", (160, 144)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="two blurred pictures are called 'a'"):
        list(match_pairs(sharp[:1], tmp_path, 32, lambda path, reason: None))

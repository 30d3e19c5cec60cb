"""Random crops: a function of seed and step, all equally likely, all inside."""

import numpy as np
import pytest
import torch

from model.data.crops import RandomCrops, central_crop


def numbered(height: int, width: int, start: int = 0) -> np.ndarray:
    """An image in which every pixel tells where it is, as far as 8 bits go."""
    return (np.arange(height * width).reshape(height, width) + start).astype(np.uint8)


def test_same_seed_and_step_give_the_same_crops():
    images = [numbered(40, 50), numbered(33, 70, 7)]
    first = RandomCrops(images, size=16, batch=8, seed=3, augment=True)
    second = RandomCrops(images, size=16, batch=8, seed=3, augment=True)
    first.at(0)
    assert torch.equal(first.at(5), second.at(5))
    assert not torch.equal(first.at(5), first.at(6))
    assert not torch.equal(first.at(5), RandomCrops(images, 16, 8, seed=4, augment=True).at(5))


def test_crops_are_pieces_of_the_images():
    image = np.random.default_rng(0).integers(256, size=(20, 24), dtype=np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8)).reshape(-1, 8, 8)
    crops = RandomCrops([image], size=8, batch=32).at(0)
    assert crops.shape == (32, 1, 8, 8)
    assert crops.dtype == torch.uint8
    for crop in crops[:, 0].numpy():
        assert (windows == crop).all(axis=(1, 2)).any()


def test_every_place_is_drawn_alike():
    """Two images hold 6 and 2 places; 8,000 draws give each 1,000 within five standard deviations."""
    images = [np.array([[0, 1, 2], [3, 4, 5]], dtype=np.uint8), np.array([[6, 7]], dtype=np.uint8)]
    drawn = RandomCrops(images, size=1, batch=8000).at(0).flatten()
    counts = torch.bincount(drawn.long(), minlength=8)
    assert (counts - 1000).abs().max() < 5 * (8000 / 8 * 7 / 8) ** 0.5


def test_augmentation_takes_all_eight_symmetries():
    image = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    crops = RandomCrops([image], size=2, batch=200, augment=True).at(0)
    assert len({tuple(crop.flatten().tolist()) for crop in crops}) == 8


def test_without_augmentation_crops_stay_upright():
    image = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    assert RandomCrops([image], size=2, batch=9).at(0).unique(dim=0).flatten().tolist() == [0, 1, 2, 3]


def test_image_smaller_than_the_crop_is_named():
    with pytest.raises(ValueError, match="15 x 40 holds no crop of 16"):
        RandomCrops([numbered(40, 15)], size=16, batch=1)


def test_central_crop_is_central():
    image = numbered(10, 14)
    assert np.array_equal(central_crop(image, 4), image[3:7, 5:9])
    assert np.array_equal(central_crop(image, 0), image)
    with pytest.raises(ValueError, match="11 pixels from an image of 14 x 10"):
        central_crop(image, 11)

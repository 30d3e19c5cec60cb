"""Crops: a function of seed and number, all equally likely, the same by every way of taking them."""

import numpy as np
import pytest
import torch

from model.data.batches import ResidentBatches, StreamedBatches, gather_crops
from model.data.crops import CropPlan, central_crop
from model.data.luma_set import LumaSet

CPU = torch.device("cpu")


def numbered(height: int, width: int, start: int = 0) -> np.ndarray:
    """An image in which every pixel tells where it is, as far as 8 bits go."""
    return (np.arange(height * width).reshape(height, width) + start).astype(np.uint8)


def as_set(*images: np.ndarray, inputs=None) -> LumaSet:
    return LumaSet.from_images([f"image {i}" for i in range(len(images))], images, inputs)


def crops_of(plan: CropPlan, first: int, count: int) -> np.ndarray:
    out = np.empty((count, plan.size, plan.size), np.uint8)
    plan.places(first, count).cut(plan.images, plan.size, out)
    return out


@pytest.mark.parametrize("sampling", ["random", "grid"])
def test_same_seed_and_number_give_the_same_crops(sampling):
    images = as_set(numbered(40, 50), numbered(33, 70, 7))
    plans = [CropPlan(images, 16, seed, True, sampling) for seed in (3, 3, 4)]
    plans[0].places(0, 5)
    expected = crops_of(plans[0], 100, 32)
    assert np.array_equal(crops_of(plans[1], 100, 32), expected)
    assert np.array_equal(crops_of(plans[1], 110, 7), expected[10:17])
    assert not np.array_equal(crops_of(plans[2], 100, 32), expected)


def test_batches_may_lie_across_two_blocks_of_draws():
    plan = CropPlan(as_set(numbered(40, 50)), 16, augment=True)
    together = crops_of(plan, 8192 - 20, 40)
    assert np.array_equal(together[:20], crops_of(plan, 8192 - 20, 20))
    assert np.array_equal(together[20:], crops_of(plan, 8192, 20))


def test_crops_are_pieces_of_the_images():
    image = np.random.default_rng(0).integers(256, size=(20, 24), dtype=np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8)).reshape(-1, 8, 8)
    for crop in crops_of(CropPlan(as_set(image), 8), 0, 32):
        assert (windows == crop).all(axis=(1, 2)).any()


def test_every_place_is_drawn_alike():
    """Two images hold 6 and 2 places; 8,000 draws give each 1,000 within five standard deviations."""
    images = as_set(np.array([[0, 1, 2], [3, 4, 5]], np.uint8), np.array([[6, 7]], np.uint8))
    counts = np.bincount(crops_of(CropPlan(images, 1), 0, 8000).ravel(), minlength=8)
    assert abs(counts - 1000).max() < 5 * (8000 / 8 * 7 / 8) ** 0.5


def test_grid_takes_every_cell_once_an_epoch_in_another_order():
    """45 x 70 holds 2 x 4 cells of 16, centred; 17 x 16 holds one."""
    images = as_set(numbered(45, 70), numbered(17, 16, 90))
    plan = CropPlan(images, 16, sampling="grid")
    assert len(plan) == 9
    epochs = [plan.places(9 * epoch, 9) for epoch in range(3)]
    cells = [set(zip(e.image, e.top, e.left, strict=True)) for e in epochs]
    expected = {(0, 6 + 16 * r, 3 + 16 * c) for r in range(2) for c in range(4)} | {(1, 0, 0)}
    assert cells[0] == cells[1] == cells[2] == expected
    assert any(not np.array_equal(epochs[0].left, other.left) for other in epochs[1:])


def test_augmentation_takes_all_eight_symmetries():
    image = np.array([[0, 1], [2, 3]], np.uint8)
    crops = crops_of(CropPlan(as_set(image), 2, augment=True), 0, 200)
    assert len({tuple(crop.ravel()) for crop in crops}) == 8


def test_without_augmentation_crops_stay_upright():
    image = np.array([[0, 1], [2, 3]], np.uint8)
    assert np.array_equal(np.unique(crops_of(CropPlan(as_set(image), 2), 0, 9), axis=0), image[None])


@pytest.mark.parametrize("sampling", ["random", "grid"])
def test_gathered_crops_are_the_cut_ones(sampling):
    images = as_set(numbered(40, 50), numbered(33, 70, 7), numbered(16, 16, 3))
    plan = CropPlan(images, 16, 1, True, sampling)
    places = plan.places(5, 64)
    assert set(places.symmetry) == set(range(8))
    gathered = gather_crops(torch.from_numpy(images.target), torch.from_numpy(places.strides(images, 16)), 16)
    assert np.array_equal(gathered[:, 0].numpy(), crops_of(plan, 5, 64))


@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.parametrize("paired", [False, True])
def test_resident_and_streamed_batches_are_the_same(ahead, paired):
    targets = [numbered(40, 50), numbered(33, 70, 7)]
    images = as_set(*targets, inputs=[255 - image for image in targets] if paired else None)
    # A selection, whose photographs do not begin at the start of the array.
    plan = CropPlan(images.select([1, 0]), 16, 1, True)
    resident = ResidentBatches(plan, 4, CPU)
    streamed = StreamedBatches(plan, 4, CPU, ahead=ahead)
    for step in (0, 1, 2, 127, 128, 5):
        (sharp, worse), (expected, expected_worse) = streamed.at(step), resident.at(step)
        assert torch.equal(sharp, expected)
        assert (worse is None) == (expected_worse is None) == (not paired)
        if paired:
            assert torch.equal(worse, expected_worse)
            assert torch.equal(worse, 255 - sharp)


@pytest.mark.parametrize("kind", [ResidentBatches, StreamedBatches])
def test_two_processes_see_what_one_sees_with_twice_the_batch(kind):
    plan = CropPlan(as_set(numbered(40, 50), numbered(33, 70, 7)), 16, 1, True)
    whole = kind(plan, 8, CPU)
    parts = [kind(plan, 4, CPU, rank=rank, world=2) for rank in range(2)]
    for step in (0, 3):
        assert torch.equal(torch.cat([part.at(step)[0] for part in parts]), whole.at(step)[0])


def test_image_smaller_than_the_crop_is_named():
    with pytest.raises(ValueError, match="15 x 40 holds no crop of 16"):
        CropPlan(as_set(numbered(40, 15)), 16)


def test_selections_share_memory_until_they_are_made_compact():
    images = as_set(numbered(40, 50), numbered(33, 70, 7), numbered(20, 20))
    part = images.select([2, 0])
    assert part.names == ("image 2", "image 0")
    assert np.shares_memory(part.image(1), images.target)
    compact = part.compact()
    assert compact.target.size == compact.pixels == 40 * 50 + 20 * 20
    assert all(np.array_equal(compact.image(i), part.image(i)) for i in range(2))
    assert images.at_least(21).names == ("image 0", "image 1")


def test_split_holds_out_what_the_seed_says_and_nothing_twice():
    images = as_set(*(numbered(9, 9, i) for i in range(20)))
    train, held_out = images.split(5, seed=1)
    assert (len(train), len(held_out)) == (15, 5)
    assert set(train.names) | set(held_out.names) == set(images.names)
    assert images.split(5, seed=1)[1].names == held_out.names != images.split(5, seed=2)[1].names


def test_central_crop_is_central():
    image = numbered(10, 14)
    assert np.array_equal(central_crop(image, 4), image[3:7, 5:9])
    assert np.array_equal(central_crop(image, 0), image)
    with pytest.raises(ValueError, match="11 pixels from an image of 14 x 10"):
        central_crop(image, 11)

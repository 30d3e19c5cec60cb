"""The box blur, against whole-number arithmetic and against the paper's published pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from model.data.blur import box_blur
from tests.photographs import data_folder, scikit_image_photograph


def blurred_by_definition(image: np.ndarray, size: int) -> np.ndarray:
    """Pixel by pixel in Python's integers, mirrored index by index."""
    height, width = image.shape
    radius = size // 2

    def mirrored(index: int, length: int) -> int:
        index = abs(index)
        return index if index < length else 2 * (length - 1) - index

    result = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            total = sum(
                int(image[mirrored(y + dy, height), mirrored(x + dx, width)])
                for dy in range(-radius, radius + 1)
                for dx in range(-radius, radius + 1)
            )
            # Rounded to the nearest; the remainder is never exactly one half, as the count is odd.
            quotient, remainder = divmod(total, size * size)
            result[y, x] = quotient + (2 * remainder > size * size)
    return result


def blur(image: np.ndarray, size: int = 5) -> np.ndarray:
    return box_blur(torch.from_numpy(image)[None, None], size)[0, 0].numpy()


@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(5, 5), (12, 31), (23, 8)])
def test_equals_the_definition(size, shape):
    image = np.random.default_rng(size).integers(256, size=shape, dtype=np.uint8)
    assert np.array_equal(blur(image, size), blurred_by_definition(image, size))


def test_every_possible_sum_is_rounded_right():
    """All 6,376 sums of 25 pixels of 8 bits, each in an image of one 5 x 5 box."""
    sums = np.arange(25 * 255 + 1)
    full, rest = np.divmod(sums, 255)
    boxes = np.where(np.arange(25) < full[:, None], 255, 0)
    boxes[np.arange(len(sums))[full < 25], full[full < 25]] = rest[full < 25]
    assert np.array_equal(boxes.sum(1), sums)
    images = torch.from_numpy(boxes.astype(np.uint8).reshape(-1, 1, 5, 5))
    centres = box_blur(images)[:, 0, 2, 2].numpy()
    assert np.array_equal(centres, [(2 * int(total) + 25) // 50 for total in sums])


def test_photograph_equals_the_definition():
    image = np.asarray(Image.open(scikit_image_photograph("camera.png")))[200:260, 200:280].copy()
    assert np.array_equal(blur(image), blurred_by_definition(image, 5))


def test_equals_the_published_blurred_picture():
    folder = data_folder("mmsp2024") / "MMSP_Comparisons"
    sharp, blurred = (np.array(Image.open(folder / f"kodim19_{name}.png")) for name in ("original", "blurry"))
    assert np.array_equal(blur(sharp), blurred)


def test_wrong_input_is_named():
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"got torch\.float32"):
        box_blur(image.float())
    with pytest.raises(ValueError, match="odd, positive size, got 4"):
        box_blur(image, 4)
    with pytest.raises(ValueError, match="larger than 2 pixels"):
        box_blur(image[..., :2])

"""Filters with weights of their own at every pixel, against loops over pixels."""

import numpy as np
import pytest
import torch

from model.networks.adaptive_filter import filter_separable, filter_square


def random(*shape):
    return torch.rand(shape, dtype=torch.float64) - 0.5


@pytest.mark.parametrize("size", [1, 3, 5])
def test_square_filter_is_a_sum_over_the_neighbourhood(size):
    n, c, height, width = 2, 3, 4, 6
    image, weights = random(n, c, height, width), random(n, size * size, height, width)
    reach = size // 2
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    expected = np.empty(image.shape)
    for row in range(height):
        for column in range(width):
            window = padded[:, :, row : row + size, column : column + size]
            weight = weights[:, :, row, column].numpy().reshape(n, 1, size, size)
            expected[:, :, row, column] = (window * weight).sum((2, 3))
    torch.testing.assert_close(filter_square(image, weights), torch.from_numpy(expected))


def test_one_in_the_middle_changes_nothing():
    image, weights = random(2, 3, 7, 5), torch.zeros(2, 25, 7, 5, dtype=torch.float64)
    weights[:, 12] = 1
    assert torch.equal(filter_square(image, weights), image)


@pytest.mark.parametrize("taps", [2, 4, 16, 24])
def test_filters_without_a_middle_are_refused(taps):
    with pytest.raises(ValueError, match=f"got {taps}"):
        filter_square(random(1, 1, 4, 4), random(1, taps, 4, 4))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 6)])
def test_separable_filter_is_along_the_column_then_along_the_row(size):
    n, c, taps = 2, 3, 3
    height, width = size
    features = random(n, c, height, width)
    vertical, horizontal = random(n, c, taps, height, width), random(n, c, taps, height, width)
    middle, expected = torch.zeros_like(features), torch.zeros_like(features)
    for row in range(height):
        for tap in range(taps):
            near = min(max(row + tap - 1, 0), height - 1)
            middle[:, :, row] += vertical[:, :, tap, row] * features[:, :, near]
    for column in range(width):
        for tap in range(taps):
            near = min(max(column + tap - 1, 0), width - 1)
            expected[..., column] += horizontal[:, :, tap, :, column] * middle[..., near]
    torch.testing.assert_close(filter_separable(features, vertical, horizontal), expected)


def test_gradients():
    image, weights = random(2, 2, 3, 4).requires_grad_(), random(2, 9, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(filter_square, (image, weights))
    vertical, horizontal = (random(2, 2, 3, 3, 4).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(filter_separable, (image, vertical, horizontal))

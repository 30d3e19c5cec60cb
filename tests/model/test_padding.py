"""Padding to a multiple: mirrored where possible, repeated where not."""

import pytest
import torch

from model.networks.padding import pad_to_multiple


def test_mirrors_without_repeating_the_edge():
    image = torch.arange(6.0).reshape(1, 1, 1, 6).expand(1, 1, 6, 6)
    assert pad_to_multiple(image, 4)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]


def test_repeats_the_edge_where_there_is_too_little_to_mirror():
    image = torch.tensor([[[[1.0, 2.0]]]])
    padded = pad_to_multiple(image, 8)
    assert padded.shape == (1, 1, 8, 8)
    assert padded[0, 0, 7].tolist() == [1, 2, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("height", range(1, 19))
@pytest.mark.parametrize("width", [1, 15, 16, 17])
def test_sides_become_the_next_multiple(height, width):
    image = torch.rand(1, 1, height, width)
    padded = pad_to_multiple(image, 16)
    assert padded.shape[-2:] == (-(-height // 16) * 16, -(-width // 16) * 16)
    assert torch.equal(padded[..., :height, :width], image)


def test_nothing_to_do_gives_the_same_tensor():
    image = torch.rand(1, 1, 32, 16)
    assert pad_to_multiple(image, 16) is image

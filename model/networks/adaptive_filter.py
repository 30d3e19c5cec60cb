"""Filters with weights of their own at every pixel: square ones, and separable ones for every channel."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.networks.border import repeat_border

__all__ = ["filter_separable", "filter_square"]

# Tap by tap: gathering each pixel's neighbourhood first would take as many copies of the image as there are
# taps, and autograd would keep them. `unbind` puts the gradient of the weights together once, where a slice
# per tap would make one full-size gradient for each.


def filter_square(image: Tensor, weights: Tensor) -> Tensor:
    """At each pixel, the sum over its neighbourhood of image times weight. Zero beyond the border.

    Args:
        image: N x C x H x W.
        weights: N x S^2 x H x W, S odd: row by row, from the neighbour above left to that below right; the
            same for all channels, used as they are.

    Returns:
        N x C x H x W.

    Raises:
        ValueError: if the number of weights is not the square of an odd number.
    """
    taps = weights.shape[1]
    size = round(taps**0.5)
    if size * size != taps or size % 2 == 0:
        raise ValueError(f"a square filter of odd size has 1, 9, 25, ... weights, got {taps}")
    height, width = image.shape[-2:]
    padded = F.pad(image, (size // 2,) * 4)
    result = torch.zeros_like(image)
    for tap, weight in enumerate(weights.unsqueeze(2).unbind(1)):
        row, column = divmod(tap, size)
        result = torch.addcmul(result, padded[..., row : row + height, column : column + width], weight)
    return result


def filter_separable(features: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """At each pixel and channel, a filter along the column, then one along the row. The border is repeated.

    Args:
        features: N x C x H x W.
        vertical, horizontal: N x C x S x H x W, S odd: from the neighbour above (left) to that below (right).

    Returns:
        N x C x H x W.
    """
    return _along(_along(features, vertical, -2), horizontal, -1)


def _along(features: Tensor, weights: Tensor, dim: int) -> Tensor:
    size, length = weights.shape[2], features.shape[dim]
    reach = size // 2
    padded = repeat_border(features, dim, reach, reach)
    first, *others = weights.unbind(2)
    result = padded.narrow(dim, 0, length) * first
    for shift, weight in enumerate(others, start=1):
        result = torch.addcmul(result, padded.narrow(dim, shift, length), weight)
    return result

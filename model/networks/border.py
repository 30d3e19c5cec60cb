"""Repeating the outermost pixels of an image or of features."""

import torch
from torch import Tensor

__all__ = ["repeat_border"]


def repeat_border(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Repeat the first slice along `dim` `before` times and the last `after` times.

    The same as `torch.nn.functional.pad(mode="replicate")` on one axis, by concatenation: compiled, the
    backward of torch's (2.13) fails on channels-last tensors.
    """
    length = list(x.shape)

    def repeated(position: int, times: int) -> list[Tensor]:
        length[dim] = times
        return [x.narrow(dim, position, 1).expand(length)] if times else []

    return torch.cat([*repeated(0, before), x, *repeated(x.shape[dim] - 1, after)], dim)

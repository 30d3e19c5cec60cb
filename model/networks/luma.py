"""Luma through networks for RGB: shown as three equal channels, and taken out of what comes back."""

import torch
from torch import Tensor

from qkernel.definition import LUMA

__all__ = ["show_luma", "take_luma"]


def show_luma(image: Tensor, channels: int) -> Tensor:
    """Luma as a network takes it: N x 1 x H x W -> N x `channels` x H x W, channels-last, equal channels."""
    return image.expand(-1, channels, -1, -1).contiguous(memory_format=torch.channels_last)


def take_luma(restored: Tensor) -> Tensor:
    """The luma of what a network gives back: N x {1, 3} x H x W -> N x 1 x H x W; luma stays as it is."""
    if restored.shape[1] == 1:
        return restored
    weights = restored.new_tensor(LUMA)[:, None, None]
    return (restored * weights).sum(1, keepdim=True)

"""The image at both ends of a network: checked at the entrance, added to the residual at the exit."""

import torch
from torch import Tensor, nn

from model.errors import UserError

__all__ = [
    "UnfitImage",
    "add_residual",
    "at_least_one",
    "check_channels",
    "check_image",
    "scale_parameters",
]


class UnfitImage(UserError, ValueError):
    """An image that a network cannot take: a wrong value to a program, and a picture to a user."""


def check_channels(channels: int) -> None:
    """Refuse numbers of channels for which there is no picture.

    Raises:
        ValueError: if `channels` is neither 1 (luma) nor 3 (RGB).
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 for luma or 3 for RGB, got {channels!r}")


def at_least_one(**counts: int) -> None:
    """Refuse widths and numbers of blocks below 1.

    Raises:
        ValueError: naming the first argument that is.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")


def check_image(image: Tensor, channels: int, network: str) -> None:
    """Refuse what is not a batch of images of the network's kind.

    Raises:
        UnfitImage: if `image` is not N x `channels` x H x W with at least one pixel.
    """
    if image.ndim != 4 or image.shape[1] != channels or 0 in image.shape[-2:]:
        kind = "luma" if channels == 1 else "RGB"
        raise UnfitImage(f"{network} takes N x {channels} x H x W {kind}, got shape {tuple(image.shape)}")


def add_residual(image: Tensor, *residuals: Tensor) -> Tensor:
    """Add what a network found to the image it saw, in float32 whatever the residuals were computed in.

    Rounding the image to half precision would turn the gradient of the sharpness metric Q, which looks at
    differences between neighbours.

    Args:
        image: N x C x H x W.
        residuals: N x C x H' x W' with H' >= H and W' >= W; what lies beyond the image is cut off.

    Returns:
        float32 (float64 if `image` is), of the shape of `image`, not clipped.
    """
    height, width = image.shape[-2:]
    exact = torch.promote_types(image.dtype, torch.float32)
    restored = image.to(exact)
    for residual in residuals:
        restored = restored + residual[..., :height, :width].to(exact)
    return restored


def scale_parameters(layer: nn.Module, gain: float) -> None:
    """Multiply the initial weights of a layer; 0 makes a network that starts as the identity."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(gain)

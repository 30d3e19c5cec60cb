"""Padding an image so that a network which halves its size several times can take it."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["pad_to_multiple"]


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad the bottom and the right of an image until both sides are multiples of `multiple`.

    The top-left corner stays where it is, so a tile whose origin is a multiple of `multiple` meets the same
    pooling grid as the whole image. The border is mirrored without repeating the edge pixel where the image
    is large enough for that, and its last row or column repeated where it is not.

    Args:
        image: N x C x H x W, any H, W >= 1.
        multiple: the number that divides both sides afterwards.

    Returns:
        N x C x H' x W' with H <= H' < H + multiple and W <= W' < W + multiple; `image` itself if nothing is
        missing.
    """
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    # Each side on its own: one of them may be too small to be mirrored while the other is not.
    if right:
        image = F.pad(image, (0, right, 0, 0), mode="reflect" if right < width else "replicate")
    if bottom:
        image = F.pad(image, (0, 0, 0, bottom), mode="reflect" if bottom < height else "replicate")
    return image

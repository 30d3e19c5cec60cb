"""Restoring the luma of a picture and nothing else."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from model.data.luma import luma_float
from model.evaluation.methods import Method
from model.photo.picture import Picture
from model.photo.tiles import Tile, tiles, together

__all__ = ["memory_estimate", "restore_picture"]

# Bytes that the U-Net's largest activations take for each pixel of a tile in float32, measured.
BYTES_PER_TILE_PIXEL = 400

# Small tiles go through the network together: its weights are fetched once for all of them. With twice as
# many what lies between the layers no longer fits the cache of a CPU.
TOGETHER = 8 * 128 * 128


def restore_picture(
    picture: Picture,
    method: Method,
    tile: int = 768,
    overlap: int = 64,
    on_tile: Callable[[], None] = lambda: None,
) -> Picture:
    """Restore a picture's luma, tile by tile, and keep its chroma.

    The change of luma, rounded to whole levels, is added to R, G and B alike. Cb and Cr are differences
    between a colour and luma, so they stay exactly as they are, except where a colour would leave its range
    and is clipped.

    Args:
        picture: colour or grey, any size.
        method: what restores.
        tile, overlap: pixels, multiples of 16.
        on_tile: called after each tile.

    Returns:
        The picture with new pixels of the same shape and type.
    """
    height, width, _ = picture.pixels.shape
    result = np.empty_like(picture.pixels)
    for group in together(tiles(height, width, tile, overlap), TOGETHER):
        lumas = np.stack([_luma(picture, part) for part in group])
        restored = method.restore(torch.from_numpy(lumas)[:, None])[:, 0].clamp(0, 1).cpu().numpy()
        for part, change in zip(group, restored - lumas, strict=True):
            levels = np.rint(change[part.inside] * picture.white).astype(np.int32)
            changed = picture.pixels[part.kept].astype(np.int32) + levels[..., None]
            result[part.kept] = changed.clip(0, picture.white).astype(result.dtype)
            on_tile()
    return picture.with_pixels(result)


def _luma(picture: Picture, part: Tile) -> NDArray[np.float32]:
    seen = picture.pixels[part.seen]
    if picture.pixels.shape[2] == 3:
        return luma_float(seen)
    return seen[..., 0].astype(np.float32) / np.float32(picture.white)


def memory_estimate(height: int, width: int, channels: int, reduce: int, tile: int, overlap: int) -> int:
    """Bytes needed to restore a picture, beside the program itself: the pictures and one
    tile, or small ones together.

    Args:
        height, width: of the file, in pixels.
        channels: bytes that Pillow takes for a pixel.
        reduce: how many times smaller it is made first.
        tile, overlap: pixels.
    """
    small = -(-height // reduce), -(-width // reduce)
    seen = min(tile + 2 * overlap, small[0]) * min(tile + 2 * overlap, small[1])
    # Pillow's picture, one turned or converted, its bytes, the pixels; as many again for the result.
    reading, restoring = (4 * channels * h * w for h, w in ((height, width), small))
    return max(reading, restoring + max(seen, TOGETHER) * BYTES_PER_TILE_PIXEL)

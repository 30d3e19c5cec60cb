"""Luma as the paper defines it, exact in integers."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["luma_float", "luma_uint8"]


def luma_uint8(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma truncated to 8 bits: floor(0.299 R + 0.587 G + 0.114 B), full range.

    The weights are taken as the integers 299, 587 and 114, so that a grey pixel keeps its value; in floating
    point 0.299 v + 0.587 v + 0.114 v may fall just below v and be truncated to v - 1. This is not the 16-235
    luma of MATLAB.

    Args:
        rgb: H x W x 3, uint8.

    Returns:
        H x W, uint8.

    Source: the paper's data protocol (MMSP 2024, section IV; measured on its published crops).
    """
    weights = np.array([299, 587, 114], dtype=np.uint32)
    return (rgb.astype(np.uint32) @ weights // 1000).astype(np.uint8)


def luma_float(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luma in [0, 1] without truncation: H x W x 3 uint8 -> H x W float32."""
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32) / np.float32(255)
    return rgb.astype(np.float32) @ weights

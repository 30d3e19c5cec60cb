"""How far a restored picture leaves the range of the sharp one: the ripples beside edges."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

__all__ = ["overshoot"]


def overshoot(sharp: NDArray[np.uint8], restored: NDArray[np.uint8], side: int = 5) -> float:
    """The mean amount by which pixels lie outside what the sharp picture shows around them.

    Blurring cannot leave that range, and the sharp picture never does. A halo beside an edge leaves it, and
    so does texture that is not there.

    Args:
        sharp, restored: H x W, uint8.
        side: of the square around each pixel, odd; 5 is the width of the blur.

    Returns:
        Grey levels of 255, from 0.
    """
    brightest = maximum_filter(sharp, side).astype(np.int16)
    darkest = minimum_filter(sharp, side).astype(np.int16)
    pixels = restored.astype(np.int16)
    return float(np.maximum(np.maximum(pixels - brightest, darkest - pixels), 0).mean())

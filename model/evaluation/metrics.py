"""The metrics of the tables, on 8-bit luma."""

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from qkernel import q_metric

__all__ = ["psnr", "quantised", "sharpness_q", "ssim"]


def quantised(restored: Tensor) -> NDArray[np.uint8]:
    """Clip to [0, 1] and round to 8 bits: 1 x 1 x H x W float -> H x W uint8.

    Rounded, where the paper's code truncates: truncation darkens by half a level and costs up to 0.3 dB near
    40 dB.
    """
    return (restored[0, 0].clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()


def psnr(sharp: NDArray[np.uint8], restored: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB, data range 255; infinite for equal pictures."""
    if np.array_equal(sharp, restored):
        return float("inf")
    return float(peak_signal_noise_ratio(sharp, restored, data_range=255))


def ssim(sharp: NDArray[np.uint8], restored: NDArray[np.uint8]) -> float:
    """Structural similarity, 11 x 11 Gaussian window, sigma 1.5, as Wang et al. 2004 and TensorFlow."""
    # scikit-image cuts the Gaussian at 3.5 sigma: radius int(3.5 * 1.5 + 0.5) = 5, so 11 x 11.
    return float(
        structural_similarity(
            sharp, restored, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def sharpness_q(picture: NDArray[np.uint8], definition: str) -> float:
    """The sharpness metric Q of a luma picture, patches of 8 x 8 from the top-left corner."""
    pixels = torch.from_numpy(picture.astype(np.float32) / 255)[None, None]
    return float(q_metric(pixels, definition=definition))

"""The metrics of the tables, on 8-bit luma."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qkernel import q_metric

__all__ = ["psnr", "quantised", "sharpness_q", "sharpness_qs", "ssim"]


def quantised(restored: Tensor, output: Literal["round", "truncate"] = "round") -> NDArray[np.uint8]:
    """Clip to [0, 1] and make 8 bits of it: 1 x 1 x H x W float -> H x W uint8.

    The paper's code truncates, which darkens by half a level and costs up to 0.3 dB near 40 dB.
    """
    levels = restored[0, 0].clamp(0, 1) * 255
    levels = levels.round() if output == "round" else levels.floor()
    return levels.to("cpu", torch.uint8).numpy()


def psnr(sharp: NDArray[np.uint8], restored: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB, data range 255; infinite for equal pictures."""
    # Imported here, and below, because it brings all of scipy.stats, which is slow and mostly not needed.
    from skimage.metrics import peak_signal_noise_ratio

    if np.array_equal(sharp, restored):
        return float("inf")
    return float(peak_signal_noise_ratio(sharp, restored, data_range=255))


def ssim(sharp: NDArray[np.uint8], restored: NDArray[np.uint8]) -> float:
    """Structural similarity, 11 x 11 Gaussian window, sigma 1.5, as Wang et al. 2004 and TensorFlow."""
    from skimage.metrics import structural_similarity

    # scikit-image cuts the Gaussian at 3.5 sigma: radius int(3.5 * 1.5 + 0.5) = 5, so 11 x 11.
    return float(
        structural_similarity(
            sharp, restored, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def sharpness_q(picture: NDArray[np.uint8], definition: str) -> float:
    """The sharpness metric Q of a luma picture, patches of 8 x 8 from the top-left corner."""
    return sharpness_qs([picture], definition)[0]


def sharpness_qs(
    pictures: Sequence[NDArray[np.uint8]], definition: str, device: torch.device | str = "cpu"
) -> list[float]:
    """Q of luma pictures of one size, all at once on a device."""
    if not pictures:
        return []
    pixels = torch.from_numpy(np.stack(pictures))[:, None].to(device).to(torch.float32) / 255
    return q_metric(pixels, definition=definition, reduction="none").tolist()

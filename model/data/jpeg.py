"""What JPEG does to luma: the loss of its quantisation, without the file."""

import numpy as np
import torch
from torch import Tensor

from model.data.constants import constant

__all__ = ["jpeg_loss"]

# The luminance table of ITU-T T.81, Table K.1, that every encoder scales by its quality.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


@constant
def _tables(device: torch.device) -> Tensor:
    """2 x 8 x 8 float32: the orthonormal DCT, a row a frequency, and the luminance table."""
    frequency, place = np.mgrid[:8, :8]
    dct = np.cos((2 * place + 1) * frequency * np.pi / 16) / 2
    dct[0] /= np.sqrt(2)
    return torch.tensor(np.stack([dct, _LUMINANCE]), dtype=torch.float32, device=device)


def jpeg_loss(image: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress luma: DCT of 8 x 8 blocks, quantised, and back.

    Args:
        image: N x 1 x H x W in 0 ... 255. Blocks begin in its corner; where a side is no multiple of 8, its
            last row or column is repeated, as encoders do.
        quality: N numbers from 1 to 100, as libjpeg scales its tables by.

    Returns:
        N x 1 x H x W float32, whole, 0 ... 255: as far from the picture as what libjpeg gives for a grey one,
        and mostly the same. libjpeg's DCT is in whole numbers, which takes some coefficients to another step.

    Source: ITU-T T.81 (JPEG); the scale is libjpeg's jpeg_quality_scaling.
    """
    # Autocast would multiply in half precision, which has fewer digits than a level needs.
    with torch.autocast(image.device.type, enabled=False):
        height, width = image.shape[-2:]
        down, right = -height % 8, -width % 8
        levels = torch.nn.functional.pad(image.to(torch.float32), (0, right, 0, down), mode="replicate")
        blocks = (levels - 128).unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
        dct, luminance = _tables(image.device)
        scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)[:, None, None]
        steps = ((luminance * scale + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
        exact = dct @ blocks @ dct.T
        kept = _half_up((exact / steps).abs()) * exact.sign() * steps
        back = (dct.T @ kept @ dct).transpose(-3, -2).flatten(-4, -3).flatten(-2) + 128
        return _half_up(back[..., :height, :width]).clamp(0, 255)


def _half_up(values: Tensor) -> Tensor:
    """To the nearest whole number; half-way, but for float's own error, is taken up, as libjpeg does."""
    return (values + (0.5 + 2**-10)).floor()

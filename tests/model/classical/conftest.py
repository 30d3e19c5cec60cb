"""Real pictures for methods that need float64 and the blur."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.photographs import scikit_image_photograph


@pytest.fixture(scope="session")
def camera() -> Tensor:
    """Two crops of a photograph, 2 x 1 x 48 x 40 float64 in [0, 1], with strong edges and without black."""
    luma = np.array(Image.open(scikit_image_photograph("camera.png")))
    crops = [luma[top : top + 48, left : left + 40] for top, left in ((90, 230), (150, 200))]
    return torch.from_numpy(np.stack(crops)[:, None] / 255)


@pytest.fixture(scope="session")
def lopsided() -> Tensor:
    """A kernel without any symmetry: with it, a wrong turn or flip shows."""
    kernel = torch.tensor([[1.0, 2, 0], [4, 9, 1], [0, 3, 0], [0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    return kernel / kernel.sum()


def decibels(first: Tensor, second: Tensor) -> float:
    """PSNR for white 1."""
    return float(-10 * torch.log10((first - second).square().mean()))

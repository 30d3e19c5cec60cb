"""What the tests of the networks share: networks small enough for steps of milliseconds, and photographs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.photographs import scikit_image_photograph

# Every kind of layer is still there, and every head of an attention has several channels.
TINY = {
    "xydeblur": {"width": 4, "blocks": 1},
    "restormer": {"width": 8, "blocks": [1, 2, 1], "heads": [1, 2, 2], "refinement": 1},
    "ddnet": {"width": 8, "blocks": 2, "taper": 16},
    "ifan": {"width": 4, "steps": 3, "depth": 2},
    "dncnn": {"width": 4, "depth": 3},
}


@pytest.fixture(params=TINY)
def name(request) -> str:
    """The networks of this folder in turn."""
    return request.param


@pytest.fixture
def tiny(name) -> dict:
    """Arguments of a small network of that name."""
    return dict(TINY[name])


@pytest.fixture(scope="session")
def photograph() -> Callable[[int, int, int], Tensor]:
    """1 x channels x height x width of the astronaut's face, float32 in [0, 1]."""
    with Image.open(scikit_image_photograph("astronaut.png")) as picture:
        colours = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None] / 255

    def crop(channels: int, height: int, width: int) -> Tensor:
        part = colours[..., 60 : 60 + height, 170 : 170 + width]
        return part.clone() if channels == 3 else part.mean(1, keepdim=True)

    return crop

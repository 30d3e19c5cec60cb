"""The images that are measured on: branches, and with them times, depend on what a picture shows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model.errors import UserError

CONTENTS = ("photo", "blurred", "noise")
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

#: Sensor noise of a good photograph, so that tiles of one photograph are not alike.
SENSOR_NOISE = 0.002
#: How far the target is from the picture, as after some training.
RESTORATION_ERROR = 0.02
BLUR = 5


def pictures(shape: tuple[int, int, int, int], content: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Float64 pred and target of shape N x {1, 3} x H x W in [0, 1].

    "photo": the astronaut of scikit-image, mirrored until it is large enough, each image from another place;
    "blurred": the same behind a 5 x 5 box blur; "noise": uniform random numbers, which no network puts out.
    """
    n, c, h, w = shape
    random = np.random.default_rng(seed)
    if content == "noise":
        pred = random.random(shape)
    elif content in CONTENTS:
        photo = _photograph(c)
        if content == "blurred":
            photo = _box_blur(photo)
        side = photo.shape[-1]
        images = []
        for _ in range(n):
            top, left = random.integers(0, side, 2)
            rows, columns = (_mirrored(start, length, side) for start, length in ((top, h), (left, w)))
            images.append(photo[:, rows[:, None], columns[None, :]])
        pred = np.stack(images)
        pred += random.normal(0, SENSOR_NOISE, shape)
    else:
        raise UserError(f"unknown content {content!r}: choose one of {', '.join(CONTENTS)}")
    target = pred + random.normal(0, RESTORATION_ERROR, shape)
    return torch.from_numpy(pred.clip(0, 1)), torch.from_numpy(target.clip(0, 1))


def _photograph(channels: int) -> np.ndarray:
    try:
        from skimage import data
    except ImportError:
        raise UserError("photographs need scikit-image: install it, or use --content noise") from None
    photo = np.moveaxis(data.astronaut() / 255.0, -1, 0)
    return photo if channels == 3 else (photo * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(0)[None]


def _box_blur(photo: np.ndarray) -> np.ndarray:
    padded = np.pad(photo, ((0, 0), (BLUR // 2,) * 2, (BLUR // 2,) * 2), mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(padded, (BLUR, BLUR), (1, 2)).mean((-1, -2))


def _mirrored(start: int, length: int, side: int) -> np.ndarray:
    """Indices start, start + 1, ... that turn back at the ends of 0 ... side - 1."""
    place = np.arange(start, start + length) % (2 * side)
    return np.where(place < side, place, 2 * side - 1 - place)

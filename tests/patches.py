"""The patch families of the accuracy requirements, as images to measure and differentiate.

A family makes `count` patches of n x n from a generator; `image` lays them out on the patch grid and fills
what is left over at the right and at the bottom with noise, which no result may depend on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image

from .photographs import scikit_image_photograph

Family = Callable[[np.random.Generator, int, int], np.ndarray]


def _positions(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n)[None, None, :], np.arange(n)[None, :, None]


def _ramp(x_step: np.ndarray, y_step: np.ndarray, n: int) -> np.ndarray:
    x, y = _positions(n)
    return x_step[:, None, None] * x + y_step[:, None, None] * y


def random(rng, count, n):
    return rng.random((count, n, n))


def random_on_ramp(rng, count, n):
    angle = rng.uniform(-np.pi, np.pi, count)
    return 0.3 * rng.random((count, n, n)) + 0.4 * _ramp(np.cos(angle), np.sin(angle), n)


def random_on_weak_ramp(rng, count, n):
    # On both sides of every threshold.
    angle, slope = rng.uniform(-np.pi, np.pi, count), rng.uniform(0, 0.5, count)
    return rng.random((count, n, n)) + _ramp(slope * np.cos(angle), slope * np.sin(angle), n)


def _exact_steps(rng, count):
    # Powers of two: the ramp is exact in every dtype, bfloat16 included, so s2 is exactly 0.
    return 2.0 ** -rng.integers(4, 9, count) * rng.choice([-1, 1], count)


def horizontal_ramp(rng, count, n):
    step = _exact_steps(rng, count)
    return _ramp(step, 0 * step, n)


def vertical_ramp(rng, count, n):
    step = _exact_steps(rng, count)
    return _ramp(0 * step, step, n)


def diagonal_ramp(rng, count, n):
    step = _exact_steps(rng, count)
    return _ramp(step, step * rng.choice([-1, 1, 2], count), n)


def ramp_at_any_angle(rng, count, n):
    angle = rng.uniform(-np.pi, np.pi, count)
    return 0.5 + 0.02 * _ramp(np.cos(angle), np.sin(angle), n)


def horizontal_step(rng, count, n):
    edge = rng.integers(1, n, count)[:, None, None]
    high = _exact_steps(rng, count)[:, None, None]
    return np.where(_positions(n)[0] >= edge, high, 0) + np.zeros((count, n, n))


def vertical_step(rng, count, n):
    return horizontal_step(rng, count, n).swapaxes(1, 2)


def diagonal_step(rng, count, n):
    x, y = _positions(n)
    edge = rng.integers(1, 2 * n - 2, count)[:, None, None]
    return np.where(x + y >= edge, _exact_steps(rng, count)[:, None, None], 0.0)


def near_rank_1(rng, count, n, noise=1e-6):
    return ramp_at_any_angle(rng, count, n) + noise * rng.standard_normal((count, n, n))


def near_rank_1_rougher(rng, count, n):
    return near_rank_1(rng, count, n, 1e-5)


def any_distance_from_rank_1(rng, count, n):
    # s2 / s1 from 0.002 to 1, through the place where engines change to a more careful s2.
    noise = 10 ** rng.uniform(-4.5, -1.5, (count, 1, 1))
    return ramp_at_any_angle(rng, count, n) + noise * rng.standard_normal((count, n, n))


def isotropic(rng, count, n):
    # A cone: its gradients point everywhere, equally strong.
    x, y = (p - (n - 1) / 2 for p in _positions(n))
    return rng.random((count, 1, 1)) * np.hypot(x, y) / n


def checkerboard(rng, count, n):
    x, y = _positions(n)
    return rng.random((count, 1, 1)) * ((x + y) % 2) + np.zeros((count, n, n))


def constant(rng, count, n):
    return rng.random((count, 1, 1)) + np.zeros((count, n, n))


def amplitude_1e_6(rng, count, n):
    return 1e-6 * random_on_ramp(rng, count, n)


def amplitude_1e4(rng, count, n):
    # Scaled so that even the largest patch stays below float16's 65504.
    return 1e4 * random_on_ramp(rng, count, n) * (4 / n)


#: Patches along whose s2 there is no direction: exactly straight edges and ramps.
STRAIGHT = (
    "horizontal_ramp",
    "vertical_ramp",
    "diagonal_ramp",
    "horizontal_step",
    "vertical_step",
)

_SYNTHETIC: tuple[Family, ...] = (
    random,
    random_on_ramp,
    random_on_weak_ramp,
    horizontal_ramp,
    vertical_ramp,
    diagonal_ramp,
    ramp_at_any_angle,
    horizontal_step,
    vertical_step,
    diagonal_step,
    near_rank_1,
    near_rank_1_rougher,
    any_distance_from_rank_1,
    isotropic,
    checkerboard,
    constant,
    amplitude_1e_6,
    amplitude_1e4,
)

#: 8-bit pictures that scikit-image's wheel itself carries (the others it would download).
PHOTOGRAPHS = ("astronaut", "camera", "coffee", "chelsea")

SYNTHETIC = {family.__name__: family for family in _SYNTHETIC}
FAMILIES = (*SYNTHETIC, *PHOTOGRAPHS)


@functools.cache
def photograph(name: str, rgb: bool = False) -> np.ndarray:
    """An 8-bit photograph, H x W of luma or H x W x 3."""
    with Image.open(scikit_image_photograph(f"{name}.png")) as picture:
        return np.asarray(picture.convert("RGB" if rgb else "L"))


def image(family: str, height: int, width: int, n: int, seed: int = 0) -> np.ndarray:
    """A float64 H x W image of one family, on a grid of n x n patches that starts at its corner."""
    rng = np.random.default_rng(seed)
    if family in PHOTOGRAPHS:
        picture = photograph(family)
        top = rng.integers(0, picture.shape[0] - height + 1)
        left = rng.integers(0, picture.shape[1] - width + 1)
        return picture[top : top + height, left : left + width] / 255.0
    rows, columns = height // n, width // n
    patches = SYNTHETIC[family](rng, rows * columns, n)
    out = rng.random((height, width))
    out[: rows * n, : columns * n] = (
        patches.reshape(rows, columns, n, n).swapaxes(1, 2).reshape(rows * n, columns * n)
    )
    return out


def stack(images: int, channels: int, height: int, width: int, n: int = 8, seed: int = 0) -> np.ndarray:
    """Float64 images x channels x H x W, all different, with every patch well above the threshold."""
    return np.array(
        [
            [image("random_on_ramp", height, width, n, seed + 9 * i + c) for c in range(channels)]
            for i in range(images)
        ]
    )

"""The oracle: Q and its gradient by the float64 SVD of each patch's gradient matrix.

Gradients are explicit N^2 x N^2 matrices, written down pixel by pixel; everything else is the singular value
decomposition G = U S V' and the chain rule dQ/dG = dQ/ds1 u1 v1' + dQ/ds2 u2 v2'. Nothing here is imported
from the library, so a mistake there cannot hide here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

DEFINITIONS = ("zhu2010", "mmsp2024", "pythonq")
LUMA = np.array([0.299, 0.587, 0.114])

#: Patches this close to the threshold may fall on either side of it in float32 (metric.md, "The gate").
GATE_BAND = 1e-5


@dataclass(frozen=True)
class Oracle:
    """Per patch (images x rows x columns), unless said otherwise."""

    q: np.ndarray
    """0 where the patch is not counted."""
    ungated: np.ndarray
    """What q would be without the gate."""
    coherence: np.ndarray
    threshold: float
    s1: np.ndarray
    s2: np.ndarray
    direction: np.ndarray
    """v1 of the SVD, with a last axis of (x, y); its sign is arbitrary."""
    norm: np.ndarray
    """Frobenius norm of dQ/dG, without the gate."""
    gradient_1: np.ndarray
    """dQ/dx without the gate, the part along s1; images x rows x columns x N x N."""
    gradient_2: np.ndarray
    """The part along s2."""

    @property
    def counted(self) -> np.ndarray:
        return (self.s1 > 0) & (self.coherence > self.threshold)

    @property
    def near_gate(self) -> np.ndarray:
        return (self.s1 > 0) & (np.abs(self.coherence - self.threshold) < GATE_BAND)

    @property
    def value(self) -> np.ndarray:
        """Q of each image."""
        return self.q.mean((1, 2))

    @property
    def gradient(self) -> np.ndarray:
        """Gradient of each patch's own q."""
        return np.where(self.counted[..., None, None], self.gradient_1 + self.gradient_2, 0)


@functools.cache
def gradient_matrices(kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The horizontal and vertical gradient of an n x n patch (raveled row by row) as N^2 x N^2 matrices."""
    gx, gy = (
        np.zeros((n, n, n, n)),
        np.zeros((n, n, n, n)),
    )  # [row, column] of the gradient, then of the pixel
    if kind == "central":
        for i in range(n):
            for j in range(n):
                low, high = max(j - 1, 0), min(j + 1, n - 1)
                gx[i, j, i, high] += 1 / (high - low)
                gx[i, j, i, low] -= 1 / (high - low)
                low, high = max(i - 1, 0), min(i + 1, n - 1)
                gy[i, j, high, j] += 1 / (high - low)
                gy[i, j, low, j] -= 1 / (high - low)
    else:
        kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8

        def mirror(k: int) -> int:
            return -k if k < 0 else 2 * (n - 1) - k if k > n - 1 else k

        for i in range(n):
            for j in range(n):
                for di in (-1, 0, 1):
                    for dj in (-1, 0, 1):
                        row, column = mirror(i + di), mirror(j + dj)
                        gx[i, j, row, column] += kernel[di + 1, dj + 1]
                        gy[i, j, row, column] += kernel[dj + 1, di + 1]
    return gx.reshape(n * n, n * n), gy.reshape(n * n, n * n)


def threshold(definition: str, n: int, delta: float = 1e-3) -> float:
    t = delta ** (1 / (n**2 - 1))
    return float(np.sqrt((1 - t) / 2 if definition == "mmsp2024" else (1 - t) / (1 + t)))


def cut(image: np.ndarray, n: int, offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Whole patches of images x H x W, as images x rows x columns x N x N."""
    image = image[:, offset[0] :, offset[1] :]
    rows, columns = image.shape[1] // n, image.shape[2] // n
    image = image[:, : rows * n, : columns * n]
    return image.reshape(-1, rows, n, columns, n).transpose(0, 1, 3, 2, 4)


def paste(
    patches: np.ndarray, height: int, width: int, offset: tuple[int, int] = (0, 0), fill: float = 0.0
) -> np.ndarray:
    """The inverse of `cut`; pixels outside the whole patches are ``fill``."""
    images, rows, columns, n, _ = patches.shape
    out = np.full((images, height, width), fill, dtype=patches.dtype)
    whole = patches.transpose(0, 1, 3, 2, 4).reshape(images, rows * n, columns * n)
    out[:, offset[0] : offset[0] + rows * n, offset[1] : offset[1] + columns * n] = whole
    return out


def _value_and_slopes(definition: str, s1: np.ndarray, s2: np.ndarray, e2: float):
    """q of a patch that is counted, dq/ds1 and dq/ds2, from the table of metric.md. Needs s1 > 0."""
    if definition == "mmsp2024":
        l1, l2 = s1**2, s2**2
        total = l1 + l2 + 2 * e2 + 1e-10
        ratio = (l1 - l2) / total
        by_l1 = ratio + l1 / total - l1 * ratio / total
        by_l2 = -l1 / total - l1 * ratio / total
        return l1 * ratio, 2 * s1 * by_l1, 2 * s2 * by_l2
    t1, t2 = np.sqrt(s1**2 + e2), np.sqrt(s2**2 + e2)
    value = t1 * (t1 - t2) / (t1 + t2)
    by_t1 = (t1**2 + 2 * t1 * t2 - t2**2) / (t1 + t2) ** 2
    by_t2 = -2 * t1**2 / (t1 + t2) ** 2
    chain_2 = np.divide(s2, t2, out=np.ones_like(s2), where=t2 > 0)
    return value, by_t1 * s1 / t1, by_t2 * chain_2


def oracle(
    image: np.ndarray,
    definition: str = "zhu2010",
    n: int = 8,
    delta: float = 1e-3,
    data_range: float = 1.0,
    eps: float = 0.0,
    offset: tuple[int, int] = (0, 0),
) -> Oracle:
    """Everything about images x H x W (one channel, any float) or images x 3 x H x W (RGB).

    The gradients of RGB images are for their luma: times LUMA they are the channels'.
    """
    image = np.asarray(image, np.float64)
    if image.ndim == 4:
        image = np.einsum("c,ichw->ihw", LUMA, image) if image.shape[1] == 3 else image[:, 0]
    patches = cut(image, n, offset)
    flat = patches.reshape(*patches.shape[:3], n * n) / data_range
    gx, gy = gradient_matrices("sobel" if definition == "mmsp2024" else "central", n)
    # In extended precision the few terms of a gradient are summed without rounding, so that a constant patch
    # has none at all; in double, numpy's BLAS would decide by its order of summation whether 1e-16 is left.
    exact = flat.astype(np.longdouble)
    g = np.stack([exact @ gx.T.astype(np.longdouble), exact @ gy.T.astype(np.longdouble)], -1)
    g = g.astype(np.float64)
    u, s, vh = np.linalg.svd(g, full_matrices=False)
    s1, s2 = s[..., 0], s[..., 1]

    safe1 = np.where(s1 > 0, s1, 1)
    value, slope1, slope2 = _value_and_slopes(definition, safe1, s2, (eps * n) ** 2)
    if definition == "zhu2010":
        coherence = (safe1 - s2) / (safe1 + s2)
    else:
        coherence = (s1**2 - s2**2) / (s1**2 + s2**2 + 1e-10)
    limit = threshold(definition, n, delta)
    counted = (s1 > 0) & (coherence > limit)

    def adjoint(k: int, slope: np.ndarray) -> np.ndarray:
        along = (u[..., k] * slope[..., None])[..., None] * vh[..., None, k, :]
        by_pixel = (along[..., 0] @ gx + along[..., 1] @ gy) / data_range
        return by_pixel.reshape(patches.shape)

    return Oracle(
        q=np.where(counted, value, 0),
        ungated=np.where(s1 > 0, value, 0),
        coherence=np.where(s1 > 0, coherence, 0),
        threshold=limit,
        s1=s1,
        s2=s2,
        direction=vh[..., 0, :],
        norm=np.where(s1 > 0, np.hypot(slope1, slope2), 0),
        gradient_1=np.where((s1 > 0)[..., None, None], adjoint(0, slope1), 0),
        gradient_2=np.where((s1 > 0)[..., None, None], adjoint(1, slope2), 0),
    )

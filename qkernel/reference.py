"""Q in plain torch: the same mathematics as the kernels, on any device, differentiable to any order.

This is what the fused engines are explained by, what their second derivative is, and what runs when no engine
is there. It is not the oracle: the tests compare everything, this file included, with a float64 SVD.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .definition import COHERENCE_FLOOR, LUMA, Definition

#: Below this multiple of the machine epsilon, s2 / s1 is rounding noise and the patch counts as rank 1.
RANK_1 = 4.0


class PatchQuantities(NamedTuple):
    """What Q is made of, each of shape images x patch rows x patch columns.

    Attributes:
        q: the patch's Q; 0 for an isotropic or flat patch.
        coherence: R, in [0, 1]; 0 for a flat patch.
        strength: the largest singular value s1 of the patch's gradients, in units of ``data_range``.
        orientation: the direction of the dominant gradient in radians, from the x axis towards y (downwards),
            in (-pi/2, pi/2].
    """

    q: Tensor
    coherence: Tensor
    strength: Tensor
    orientation: Tensor


def luma(x: Tensor) -> Tensor:
    """Images x H x W luma of images x {1, 3} x H x W."""
    if x.shape[1] == 1:
        return x[:, 0]
    red, green, blue = x.unbind(1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def cut(image: Tensor, patch_size: int, offset: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Patches of images x H x W as images x patch rows x N x patch columns x N, and which of them are whole.

    Pixels outside the whole patches are dropped. An offset is data that may live on a GPU, and the number of
    patches depends on it: so as many patches are taken as offset 0 has, and a mask of patch rows x patch
    columns (None where all are whole) tells the ones that stick out; no value is read back to the host. An
    offset that is out of range, where it could not be checked before, gives patches of NaN.
    """
    n = patch_size
    size = image.shape[-2:]
    rows, columns = (s // n for s in size)
    if offset is None:
        whole = image[..., : rows * n, : columns * n]
        return whole.unflatten(-1, (columns, n)).unflatten(-3, (rows, n)), None
    masks, valid = [], True
    for axis, count in ((0, rows), (1, columns)):
        start = offset[axis].to(image.device, torch.int64)
        positions = start + torch.arange(count * n, device=image.device)
        image = image.index_select(axis - 2, positions.clamp(0, size[axis] - 1))
        valid = (start >= 0) & (start < n) & (start + n <= size[axis]) & valid
        masks.append(start + (torch.arange(count, device=image.device) + 1) * n <= size[axis])
    image = image * torch.where(valid, 1.0, math.nan)
    whole = masks[0][:, None] & masks[1][None, :]
    return image.unflatten(-1, (columns, n)).unflatten(-3, (rows, n)), whole


def _central(patches: Tensor, dim: int) -> Tensor:
    last = patches.shape[dim] - 1
    first = patches.narrow(dim, 1, 1) - patches.narrow(dim, 0, 1)
    inside = (patches.narrow(dim, 2, last - 1) - patches.narrow(dim, 0, last - 1)) / 2
    end = patches.narrow(dim, last, 1) - patches.narrow(dim, last - 1, 1)
    return torch.cat([first, inside, end], dim)


def _sobel(patches: Tensor, dim: int, across: int) -> Tensor:
    # The difference comes before the smoothing: it is exact for neighbours of similar brightness, so a weak
    # gradient on a bright patch keeps its digits.
    last = patches.shape[dim] - 1
    edge = torch.zeros_like(patches.narrow(dim, 0, 1))
    inside = patches.narrow(dim, 2, last - 1) - patches.narrow(dim, 0, last - 1)
    difference = torch.cat([edge, inside, edge], dim)
    before = torch.cat([difference.narrow(across, 1, 1), difference.narrow(across, 0, last)], across)
    after = torch.cat([difference.narrow(across, 1, last), difference.narrow(across, last - 1, 1)], across)
    return (before + 2 * difference + after) / 8


def gradients(patches: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical gradients inside each patch, of the patches' shape."""
    if kind == "central":
        return _central(patches, -1), _central(patches, -3)
    return _sobel(patches, -1, -3), _sobel(patches, -3, -1)


def _orient(u: Tensor, w: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vector of the principal direction from d (cos 2a, sin 2a) = (u, w), without cancellation."""
    large = ((1 + (u / d).abs()) / 2).sqrt()
    small = w / d / (2 * large)
    return torch.where(u >= 0, large, small), torch.where(u >= 0, small, large)


def patch_quantities(
    x: Tensor, definition: Definition, offset: Tensor | None = None, refine: bool = True
) -> tuple[PatchQuantities, Tensor | None]:
    """Q, coherence, strength and orientation of every patch, and which patches are whole (None: all).

    Args:
        x: images x {1, 3} x H x W, floating point. Computed in its dtype, half precision in float32.
        definition: the definition of Q.
        offset: two integers, the first row and column of the patch grid; None is (0, 0).
        refine: sum (g . v2)^2 for the small eigenvalue, which keeps its digits when s2 << s1. Without it the
            determinant is used: faster, and wrong by about 3e-4 s1 in float32.

    Source: eqs. 2-5 of the paper; closed forms of the eigenvalues of a symmetric 2x2 matrix.
    """
    formula = definition.formula
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    patches, whole = cut(luma(x), definition.patch_size, offset)
    # Differences first: those of an 8-bit picture are exact, and a straight edge stays exactly of rank 1.
    gx, gy = (g / definition.data_range for g in gradients(patches, formula.gradient))
    a, b, c = (gx * gx).sum((-3, -1)), (gx * gy).sum((-3, -1)), (gy * gy).sum((-3, -1))

    with torch.no_grad():
        # Normalised by the trace, so that neither dark nor bright patches leave the float's range. `<`,
        # `<=` and torch.clamp let NaN through: a NaN patch counts, and its NaN reaches the value.
        trace = a + c
        # What is divided by a trace below the smallest normal number does not stay finite.
        flat = trace < torch.finfo(trace.dtype).tiny
        scale = torch.where(flat, 1, trace)
        na, nb, nc = a / scale, b / scale, c / scale
        d = ((na - nc).square() + 4 * nb.square()).sqrt()
        if formula.coherence == "singular":
            coherence = d / (1 + 2 * (na * nc - nb.square()).clamp(min=0).sqrt())
        else:
            coherence = d * trace / (trace + COHERENCE_FLOOR)
        counted = ~(flat | (coherence <= definition.threshold))
        orientation = torch.atan2(2 * nb, na - nc) / 2
        strength = (trace * (1 + d) / 2).sqrt()

    # From here on, uncounted patches stand in as diag(1, 0): their branch must stay finite at any order.
    a, b, c = torch.where(counted, a, 1), torch.where(counted, b, 0), torch.where(counted, c, 0)
    trace = a + c
    u, w = (a - c) / trace, 2 * b / trace
    d = (u.square() + w.square()).sqrt()
    l1 = trace * (1 + d) / 2
    e2 = definition.smoothing
    if formula.value == "eigen":
        q = l1 * d * trace / (trace + 2 * e2 + COHERENCE_FLOOR)
    else:
        if refine:
            vx, vy = (v[..., :, None, :, None] for v in _orient(u, w, d))
            p1, p2 = gx * vx + gy * vy, gy * vx - gx * vy
            l2 = p2.square().sum((-3, -1))
            cross = (p1 * p2).sum((-3, -1))
            l2 = l2 - cross * (cross / torch.where(counted, l1 - l2, 1))
        else:
            l2 = (a * c - b * b) / l1
        if e2:
            s2 = (l2.clamp(min=0) + e2).sqrt()
        else:
            # Rank 1: s2 has no direction to grow in; 0 is a subgradient. Not-greater keeps NaN.
            tiny = (RANK_1 * torch.finfo(l2.dtype).eps) ** 2
            rank_1 = l2 <= tiny * l1
            s2 = torch.where(rank_1, 0, torch.where(rank_1, 1, l2).sqrt())
        s1 = (l1 + e2).sqrt()
        total = s1 + s2
        # Divided twice here, and above: squares of weak gradients leave the float's range.
        q = s1 * d * (trace / total / total)
    return PatchQuantities(torch.where(counted, q, 0), coherence, strength, orientation), whole


def q_per_image(
    x: Tensor, definition: Definition, offset: Tensor | None = None, refine: bool = True
) -> Tensor:
    """Q of each image: the mean over all whole patches, in the dtype Q is computed in (eq. 5)."""
    quantities, whole = patch_quantities(x, definition, offset, refine)
    if whole is None:
        return quantities.q.mean((-2, -1))
    return torch.where(whole, quantities.q, 0).sum((-2, -1)) / whole.sum()


def pixel_per_image(pred: Tensor, target: Tensor, pixel: str, charbonnier_eps: float) -> Tensor:
    """Mean of |d|, d^2 or sqrt(d^2 + charbonnier_eps^2) over each image, d = pred - target, all channels."""
    dtype = torch.float64 if torch.float64 in (pred.dtype, target.dtype) else torch.float32
    difference = pred.to(dtype) - target.to(dtype)
    if pixel == "l1":
        value = difference.abs()
    elif pixel == "mse":
        value = difference.square()
    else:
        value = (difference.square() + charbonnier_eps**2).sqrt()
    return value.mean((1, 2, 3))


def reduce(per_image: Tensor, reduction: str) -> Tensor:
    """One number of one per image: their "mean", their "sum", or themselves ("none")."""
    if reduction == "mean":
        return per_image.mean()
    return per_image.sum() if reduction == "sum" else per_image

"""Q as functions: arguments checked in words, and differentiation that composes with all of torch.

Eager calls go through the autograd.Functions of `differentiation`, compiled ones straight to the ops. A
transform of torch.func inside a compiled function is given plain torch, which is compiled with it: Dynamo
takes no Function with a jvp, and an op without one loses the tangent.
"""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from . import differentiation, ops, reference
from .checks import (
    check_charbonnier_eps,
    check_images,
    check_pixel,
    check_reduction,
    check_return_terms,
    check_weight,
    picture,
)
from .definition import Definition
from .engines import eager
from .offsets import Offset, grid
from .reference import PatchQuantities


def q_metric(
    x: Tensor,
    definition: str = "zhu2010",
    patch_size: int = 8,
    delta: float = 1e-3,
    data_range: float = 1.0,
    reduction: str = "mean",
    offset: Offset = (0, 0),
    engine: str = "auto",
    *,
    eps: float = 0.0,
) -> Tensor:
    """Zhu and Milanfar's no-reference sharpness metric Q; higher is sharper. Differentiable.

    Args:
        x: N x {1, 3} x H x W, {1, 3} x H x W or H x W; RGB is turned to luma. float32, float64, bfloat16,
            float16, or uint8, whose data_range is 255. H and W at least ``patch_size``.
        definition: "zhu2010", "mmsp2024" or "pythonq"; see `Definition`.
        patch_size: side of the square patches in pixels, at least 3; 4, 8 and 16 are fastest.
        delta: significance level of the coherence threshold, between 0 and 1 (exclusive).
        data_range: the value of white.
        reduction: over images: "mean", "sum" or "none" (N values). The mean of no images is NaN, as in torch.
        offset: first row and column (dy, dx) of the patch grid, each below ``patch_size`` and at most the
            image's size - ``patch_size``; an integer tensor of two on x's device; or "random": drawn anew at
            every call from the default generator of x's device.
        engine: "auto" takes the fastest there is; "cpp", "cuda", "triton" or "eager" asks for one.
        eps: smoothing of the singular values in gradient per pixel, in units of ``data_range``.

    Returns:
        A scalar, or N values with reduction "none" (a scalar for an input without batch dimension); float32,
        or float64 for float64 input.

    Raises:
        TypeError, ValueError: for arguments outside these; RuntimeError for an engine that is missing.

    Source: Zhu and Milanfar, IEEE TIP 19(12), 2010; eqs. 2-5 of the paper.
    """
    batched, data_range = picture(x, data_range)
    definition_ = _definition(definition, patch_size, delta, data_range, eps)
    value = _q(batched, definition_, offset, 1.0, reduction, engine)
    return value[0] if reduction == "none" and x.dim() < 4 else value


def q_map(
    x: Tensor,
    definition: str = "zhu2010",
    patch_size: int = 8,
    delta: float = 1e-3,
    data_range: float = 1.0,
    offset: Offset = (0, 0),
    *,
    eps: float = 0.0,
) -> PatchQuantities:
    """Q, coherence, strength and orientation of each patch: what Q sees, as pictures. In plain torch.

    Args: as of `q_metric`.

    Returns:
        A named tuple of ``q``, ``coherence``, ``strength`` and ``orientation``, each N x patch rows x patch
        columns (without N for an input without batch dimension); see `PatchQuantities`. The mean of ``q`` is
        Q.

    Raises:
        TypeError, ValueError: as `q_metric`.
    """
    batched, data_range = picture(x, data_range)
    definition_ = _definition(definition, patch_size, delta, data_range, eps)
    quantities, whole = reference.patch_quantities(batched, definition_, grid(batched, patch_size, offset))
    if whole is not None:
        rows, columns = int(whole.any(1).sum()), int(whole.any(0).sum())
        quantities = PatchQuantities(*(value[:, :rows, :columns] for value in quantities))
    return PatchQuantities(*(value[0] for value in quantities)) if x.dim() < 4 else quantities


def q_loss(
    pred: Tensor,
    weight: float = 1.0,
    definition: str = "zhu2010",
    patch_size: int = 8,
    delta: float = 1e-3,
    data_range: float = 1.0,
    reduction: str = "mean",
    offset: Offset = (0, 0),
    engine: str = "auto",
    *,
    eps: float = 0.0,
) -> Tensor:
    """-``weight`` * Q(``pred``): falls as the picture gets sharper. See `q_metric` for the arguments.

    Args:
        pred: N x {1, 3} x H x W, floating point.
        weight: of Q; a finite number. One in a tensor goes outside: ``weight * q_loss(pred)``.
    """
    check_images("pred", pred)
    definition_ = _definition(definition, patch_size, delta, data_range, eps)
    return _q(pred, definition_, offset, -check_weight(weight), reduction, engine)


class _QSettings(TypedDict, total=False):
    """The arguments of `mae_q_loss` after ``return_terms``, whose value decides what it returns."""

    definition: str
    patch_size: int
    delta: float
    data_range: float
    reduction: str
    offset: Offset
    engine: str
    eps: float


@overload
def mae_q_loss(
    pred: Tensor,
    target: Tensor,
    weight: float = ...,
    pixel: str = ...,
    charbonnier_eps: float = ...,
    return_terms: Literal[False] = ...,
    **settings: Unpack[_QSettings],
) -> Tensor: ...


@overload
def mae_q_loss(
    pred: Tensor,
    target: Tensor,
    weight: float = ...,
    pixel: str = ...,
    charbonnier_eps: float = ...,
    *,
    return_terms: Literal[True],
    **settings: Unpack[_QSettings],
) -> tuple[Tensor, dict[str, Tensor]]: ...


@overload
def mae_q_loss(
    pred: Tensor,
    target: Tensor,
    weight: float = ...,
    pixel: str = ...,
    charbonnier_eps: float = ...,
    return_terms: bool = ...,
    **settings: Unpack[_QSettings],
) -> Tensor | tuple[Tensor, dict[str, Tensor]]: ...


def mae_q_loss(
    pred: Tensor,
    target: Tensor,
    weight: float = 0.01,
    pixel: str = "l1",
    charbonnier_eps: float = 1e-3,
    return_terms: bool = False,
    definition: str = "zhu2010",
    patch_size: int = 8,
    delta: float = 1e-3,
    data_range: float = 1.0,
    reduction: str = "mean",
    offset: Offset = (0, 0),
    engine: str = "auto",
    *,
    eps: float = 0.0,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """mean |pred - target| - ``weight`` * Q(pred), in one pass over the images (eq. 7 of the paper).

    Args:
        pred: N x {1, 3} x H x W, floating point; RGB: the pixel term on all channels, Q on the luma.
        target: like ``pred`` in shape and device; its floating-point dtype may differ.
        weight: of Q; a finite number. One in a tensor goes outside: pixel loss - ``weight * q_metric(pred)``.
        pixel: "l1" |d|, "mse" d^2, or "charbonnier" sqrt(d^2 + charbonnier_eps^2), averaged over each image.
        charbonnier_eps: in the pixels' units, positive.
        return_terms: also return {"pixel": ..., "q": ...}, detached, unweighted, on the device.

    See `q_metric` for the rest. With reduction "sum" or "none" the loss is that of each image, added or
    apart.
    """
    check_images("pred", pred)
    check_images("target", target)
    if target.shape != pred.shape:
        raise ValueError(
            f"pred and target must have the same shape, not {tuple(pred.shape)} and {tuple(target.shape)}"
        )
    if target.device != pred.device:
        raise ValueError(f"pred and target must be on the same device, not {pred.device} and {target.device}")
    check_pixel(pixel)
    check_charbonnier_eps(charbonnier_eps)
    check_return_terms(return_terms)
    d = _definition(definition, patch_size, delta, data_range, eps)
    check_reduction(reduction)
    first = grid(pred, patch_size, offset)
    settings = (pixel, float(charbonnier_eps), d.name, d.patch_size, d.delta, d.data_range, d.eps)
    tail = (check_weight(weight), reduction, engine)
    if torch.compiler.is_compiling():
        if differentiation.is_transformed():
            loss, terms = eager.pixel_q(pred, target, *settings[:2], d, first, *tail[:2])
        else:
            loss, terms = torch.ops.qkernel.pixel_q(pred, target, *settings, first, *tail)
        terms = terms.detach()
    else:
        loss, terms = differentiation.pixel_q(pred, target, first, settings, tail)
    return (loss, {"pixel": terms[0], "q": terms[1]}) if return_terms else loss


def _definition(name: str, patch_size: int, delta: float, data_range: float, eps: float) -> Definition:
    # Dynamo sees through a cache, and warns; while it traces, nothing needs to be fast.
    make = Definition if torch.compiler.is_compiling() else ops.definition_of
    return make(name, patch_size, delta, data_range, eps)


def _q(x: Tensor, d: Definition, offset: Offset, weight: float, reduction: str, engine: str) -> Tensor:
    check_reduction(reduction)
    first = grid(x, d.patch_size, offset)
    settings = (d.name, d.patch_size, d.delta, d.data_range, d.eps)
    tail = (weight, reduction, engine)
    if torch.compiler.is_compiling():
        if differentiation.is_transformed():
            return eager.q(x, d, first, *tail[:2])
        return torch.ops.qkernel.q(x, *settings, first, *tail)
    return differentiation.q(x, first, settings, tail)

"""Q as functions: arguments checked in words, and differentiation that composes with all of torch.

Eager calls go through the autograd.Functions of `differentiation`, compiled ones straight to the ops. A
transform of torch.func inside a compiled function is given plain torch, which is compiled with it: Dynamo
takes no Function with a jvp, and an op without one loses the tangent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import differentiation, ops, reference
from .definition import Definition
from .engines import eager
from .reference import PatchQuantities

REDUCTIONS = ("mean", "sum", "none")
PIXEL_TERMS = ("l1", "mse", "charbonnier")
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

Offset = str | Sequence[int] | Tensor


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
    batched, data_range = _picture(x, data_range)
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
    batched, data_range = _picture(x, data_range)
    definition_ = _definition(definition, patch_size, delta, data_range, eps)
    grid = _grid(batched, definition_, offset)
    quantities, whole = reference.patch_quantities(batched, definition_, grid)
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
        weight: of Q; finite.
    """
    _check_images("pred", pred)
    definition_ = _definition(definition, patch_size, delta, data_range, eps)
    return _q(pred, definition_, offset, -check_weight(weight), reduction, engine)


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
        weight: of Q; finite.
        pixel: "l1" |d|, "mse" d^2, or "charbonnier" sqrt(d^2 + charbonnier_eps^2), averaged over each image.
        charbonnier_eps: in the pixels' units, positive.
        return_terms: also return {"pixel": ..., "q": ...}, detached, unweighted, on the device.

    See `q_metric` for the rest. With reduction "sum" or "none" the loss is that of each image, added or
    apart.
    """
    _check_images("pred", pred)
    _check_images("target", target)
    if target.shape != pred.shape:
        raise ValueError(
            f"pred and target must have the same shape, not {tuple(pred.shape)} and {tuple(target.shape)}"
        )
    if target.device != pred.device:
        raise ValueError(f"pred and target must be on the same device, not {pred.device} and {target.device}")
    check_pixel(pixel)
    check_charbonnier_eps(charbonnier_eps)
    d = _definition(definition, patch_size, delta, data_range, eps)
    check_reduction(reduction)
    grid = _grid(pred, d, offset)
    settings = (pixel, float(charbonnier_eps), d.name, d.patch_size, d.delta, d.data_range, d.eps)
    tail = (check_weight(weight), reduction, engine)
    if torch.compiler.is_compiling():
        if differentiation.is_transformed():
            loss, terms = eager.pixel_q(pred, target, *settings[:2], d, grid, *tail[:2])
        else:
            loss, terms = torch.ops.qkernel.pixel_q(pred, target, *settings, grid, *tail)
        terms = terms.detach()
    else:
        loss, terms = differentiation.pixel_q(pred, target, grid, settings, tail)
    return (loss, {"pixel": terms[0], "q": terms[1]}) if return_terms else loss


# Checks


def _definition(name: str, patch_size: int, delta: float, data_range: float, eps: float) -> Definition:
    # Dynamo sees through a cache, and warns; while it traces, nothing needs to be fast.
    make = Definition if torch.compiler.is_compiling() else ops.definition_of
    return make(name, patch_size, delta, data_range, eps)


def _check_images(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(x).__name__}")
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"{name} must be N x 1 x H x W or N x 3 x H x W, not of shape {tuple(x.shape)}")
    if x.dtype not in FLOATS:
        raise TypeError(
            f"{name} must be float32, float64, bfloat16 or float16, not {x.dtype}: "
            "a loss needs a gradient (for uint8 pictures, use x.float() / 255)"
        )


def _picture(x: Tensor, data_range: float) -> tuple[Tensor, float]:
    """A batch of float images and their data range, from what the metric takes."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, not {type(x).__name__}")
    if x.dim() not in (2, 3, 4):
        raise ValueError(
            f"x must be N x {{1, 3}} x H x W, {{1, 3}} x H x W or H x W, not of shape {tuple(x.shape)}"
        )
    if x.dtype == torch.uint8:
        if data_range not in (1.0, 255.0):
            raise ValueError(f"the data_range of uint8 pictures is 255, not {data_range}")
        x, data_range = x.float(), 255.0
    if x.dim() == 2:
        x = x[None, None]
    elif x.dim() == 3:
        x = x[None]
    if x.shape[1] not in (1, 3):
        raise ValueError(
            f"x must have 1 or 3 channels, not {x.shape[1]} (shape {tuple(x.shape)}): "
            "channels come before height and width"
        )
    if x.dtype not in FLOATS:
        raise TypeError(f"x must be float32, float64, bfloat16, float16 or uint8, not {x.dtype}")
    return x, data_range


def check_weight(weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise TypeError(f"weight must be a number, not {weight!r}")
    if not -float("inf") < weight < float("inf"):
        raise ValueError(f"weight must be finite, not {weight}")
    return float(weight)


def check_reduction(reduction: str) -> str:
    if reduction not in REDUCTIONS:
        raise ValueError(f"unknown reduction {reduction!r}: choose one of {', '.join(REDUCTIONS)}")
    return reduction


def check_pixel(pixel: str) -> str:
    if pixel not in PIXEL_TERMS:
        raise ValueError(f"unknown pixel term {pixel!r}: choose one of {', '.join(PIXEL_TERMS)}")
    return pixel


def check_charbonnier_eps(eps: float) -> float:
    if not 0 < eps < float("inf"):
        raise ValueError(f"charbonnier_eps must be positive and finite, not {eps}")
    return float(eps)


def _grid(x: Tensor, definition: Definition, offset: Offset) -> Tensor | None:
    """The offset as the ops take it: None for (0, 0), else two int32 on x's device."""
    n = definition.patch_size
    if x.shape[2] < n or x.shape[3] < n:
        raise ValueError(
            f"an image of {x.shape[2]} x {x.shape[3]} pixels is smaller than one patch of {n} x {n}"
        )
    size = x.shape[2:]
    limits = [min(n - 1, s - n) for s in size]
    if isinstance(offset, str):
        if offset != "random":
            raise ValueError(f"offset must be (dy, dx), a tensor of two integers or 'random', not {offset!r}")

        # On the device, so that a compiled or captured step draws anew every time it runs.
        def draw(limit: int, count: int) -> Tensor:
            return torch.randint(0, limit + 1, (count,), dtype=torch.int32, device=x.device)

        # One launch instead of three wherever the sides have room for any offset; a compiled graph merges the
        # three itself, and must not be bound to what the sides of its example have room for.
        if not torch.compiler.is_compiling() and limits[0] == limits[1]:
            return draw(limits[0], 2)
        return torch.cat([draw(limit, 1) for limit in limits])
    if isinstance(offset, Tensor):
        if offset.shape != (2,) or offset.is_floating_point() or offset.dtype == torch.bool:
            raise ValueError(
                f"an offset tensor must hold two integers (dy, dx), not {tuple(offset.shape)} "
                f"of {offset.dtype}"
            )
        if offset.device != x.device:
            raise ValueError(
                f"the offset tensor must be on the images' device {x.device}, not {offset.device}"
            )
        if offset.device.type == "cpu" and not torch.compiler.is_compiling() and not _is_traced(offset):
            _check_offset_range(offset.tolist(), limits, size, n)
        return offset.to(torch.int32)
    try:
        dy, dx = offset
        if isinstance(dy, bool) or isinstance(dx, bool) or int(dy) != dy or int(dx) != dx:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"offset must be (dy, dx), a tensor of two integers or 'random', not {offset!r}"
        ) from None
    if dy == dx == 0:
        return None
    _check_offset_range((dy, dx), limits, size, n)
    # Filled on the device, both by one launch: a copy from the host would not be allowed in a captured graph.
    return torch.full((1,), int(dy) + (int(dx) << 32), dtype=torch.int64, device=x.device).view(torch.int32)


def _is_traced(x: Tensor) -> bool:
    return type(x) is not Tensor or torch._C._functorch.is_functorch_wrapped_tensor(x)


def _check_offset_range(offset: Sequence[int], limits: Sequence[int], size: Sequence[int], n: int) -> None:
    for value, limit, name in zip(offset, limits, ("dy", "dx"), strict=True):
        if not 0 <= value <= limit:
            raise ValueError(
                f"offset {name} must lie between 0 and {limit} for an image of {size[0]} x {size[1]} "
                f"and patch_size {n}, not {value}"
            )


def _q(x: Tensor, d: Definition, offset: Offset, weight: float, reduction: str, engine: str) -> Tensor:
    check_reduction(reduction)
    grid = _grid(x, d, offset)
    settings = (d.name, d.patch_size, d.delta, d.data_range, d.eps)
    tail = (weight, reduction, engine)
    if torch.compiler.is_compiling():
        if differentiation.is_transformed():
            return eager.q(x, d, grid, *tail[:2])
        return torch.ops.qkernel.q(x, *settings, grid, *tail)
    return differentiation.q(x, grid, settings, tail)

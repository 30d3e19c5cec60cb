"""The eager engine: the reference with autograd. Runs wherever torch runs, slowly."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from .. import reference
from ..definition import Definition


def missing() -> str | None:
    return None


def refusal(x: Tensor, definition: Definition, target: Tensor | None = None) -> str | None:
    return None


def q(x: Tensor, definition: Definition, offset: Tensor | None, weight: float, reduction: str) -> Tensor:
    # Weighted for each image: torch's jvp of a number times a scalar is float64, whatever the scalar.
    return reference.reduce(weight * reference.q_per_image(x, definition, offset), reduction)


def q_grad(
    grad_output: Tensor,
    x: Tensor,
    definition: Definition,
    offset: Tensor | None,
    weight: float,
    reduction: str,
) -> Tensor:
    return _gradient(lambda leaf: q(leaf, definition, offset, weight, reduction), x, grad_output)


def pixel_q(
    pred: Tensor,
    target: Tensor,
    pixel: str,
    charbonnier_eps: float,
    definition: Definition,
    offset: Tensor | None,
    weight: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    pred = _wide(pred)
    pixel_term = reference.pixel_per_image(pred, target, pixel, charbonnier_eps)
    q_term = reference.q_per_image(pred, definition, offset)
    loss = reference.reduce(pixel_term - weight * q_term, reduction)
    return loss, torch.stack([reference.reduce(term, reduction) for term in (pixel_term, q_term)])


def pixel_q_grad(
    grad_output: Tensor,
    pred: Tensor,
    target: Tensor,
    pixel: str,
    charbonnier_eps: float,
    definition: Definition,
    offset: Tensor | None,
    weight: float,
    reduction: str,
) -> Tensor:
    def loss(leaf: Tensor) -> Tensor:
        return pixel_q(leaf, target, pixel, charbonnier_eps, definition, offset, weight, reduction)[0]

    return _gradient(loss, pred, grad_output)


def _gradient(function: Callable[[Tensor], Tensor], x: Tensor, grad_output: Tensor) -> Tensor:
    with _autograd(), torch.enable_grad():
        leaf = _wide(x).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(leaf), leaf, grad_output)
    return torch.empty_like(x).copy_(gradient)


def _wide(x: Tensor) -> Tensor:
    """Half precision in float32, once for all terms: their gradients are added before the one rounding."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _autograd() -> AbstractContextManager:
    """Switches autograd on again, which the dispatcher has switched off inside an op.

    torch.func.vjp would need no dispatch keys, but its tensor wrappers break the modes an op may run under.
    """
    autograd = (torch._C.DispatchKey.AutogradFunctionality, torch._C.DispatchKey.ADInplaceOrView)
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in autograd:
        excluded = excluded.remove(key)
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)

"""The ops as autograd.Functions, which compose with torch.func, vmap and forward mode.

`torch.library.register_autograd` serves autograd and torch.compile, but torch.func.grad and vmap(grad) raise
with it, and jvp is silently 0 (seen in torch 2.13). These Functions say all of it: `setup_context`, `vmap`,
`jvp`.

``settings`` are an op's arguments between its tensors and ``offset``; ``tail`` those after: weight,
reduction, engine.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from . import ops, reference


class _Function(Function):
    """A Function that is cheap to call eagerly."""

    @classmethod
    def apply(cls, *arguments):
        # Function.apply inspects the signature of `forward` at every call, for defaults and keywords that
        # these do not have; on a small image that costs more than Q.
        if torch._C._are_functorch_transforms_active():
            return super().apply(*arguments)
        return super(Function, cls).apply(*arguments)


class Q(_Function):
    """`qkernel::q` of (x, offset, settings, tail)."""

    @staticmethod
    def forward(x, offset, settings, tail):
        return ops.call("q", x, *settings, offset, *tail)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, offset, ctx.settings, ctx.tail = inputs
        ctx.save_for_backward(x, offset)
        ctx.save_for_forward(x, offset)

    @staticmethod
    def backward(ctx, grad_output):
        x, offset = ctx.saved_tensors
        return _q_grad(grad_output, x, offset, ctx.settings, ctx.tail), None, None, None

    @staticmethod
    def jvp(ctx, x_tangent, *_):
        x, offset = ctx.saved_tensors
        weight, reduction, engine = ctx.tail
        each = ops.value_dtype(x)
        ones = torch.ones(x.shape[0], dtype=each, device=x.device)
        gradient = _q_grad(ones, x, offset, ctx.settings, (weight, "none", engine))
        return reference.reduce((gradient.to(each) * x_tangent.to(each)).sum((1, 2, 3)), reduction)

    @staticmethod
    def vmap(info, in_dims, x, offset, settings, tail):
        weight, reduction, engine = tail
        _refuse_batched_offset(in_dims[1])
        folded = _fold(x, in_dims[0], info.batch_size)
        values = Q.apply(folded, offset, settings, (weight, "none", engine))
        return _reduce_inner(values, info.batch_size, reduction), 0


class QGrad(_Function):
    """`qkernel::q_grad` of (grad_output, x, offset, settings, tail)."""

    @staticmethod
    def forward(grad_output, x, offset, settings, tail):
        return ops.call("q_grad", grad_output, x, *settings, offset, *tail)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_output, x, offset, ctx.settings, ctx.tail = inputs
        ctx.save_for_backward(grad_output, x, offset)
        ctx.save_for_forward(grad_output, x, offset)

    @staticmethod
    def backward(ctx, v):
        grad_output, x, offset = ctx.saved_tensors
        return *ops.q_second(v, grad_output, x, (*ctx.settings, offset, *ctx.tail)), None, None, None

    @staticmethod
    def jvp(ctx, grad_output_tangent, x_tangent, *_):
        grad_output, x, offset = ctx.saved_tensors
        change = torch.zeros_like(x)
        if grad_output_tangent is not None:
            change = change + _q_grad(grad_output_tangent, x, offset, ctx.settings, ctx.tail)
        if x_tangent is not None:
            # Second derivatives are symmetric: the change along a tangent is <q_grad, tangent>'s gradient.
            arguments = (*ctx.settings, offset, *ctx.tail)
            change = change + ops.q_second(x_tangent, grad_output, x, arguments)[1]
        return change

    @staticmethod
    def vmap(info, in_dims, grad_output, x, offset, settings, tail):
        weight, reduction, engine = tail
        _refuse_batched_offset(in_dims[2])
        folded = _fold(x, in_dims[1], info.batch_size)
        each = _spread(grad_output, in_dims[0], info.batch_size, folded.shape[0], reduction)
        gradient = QGrad.apply(each, folded, offset, settings, (weight, "none", engine))
        return gradient.unflatten(0, (info.batch_size, -1)), 0


class PixelQ(_Function):
    """`qkernel::pixel_q` of (pred, target, offset, settings, tail): the loss and, detached, its two terms."""

    @staticmethod
    def forward(pred, target, offset, settings, tail):
        return ops.call("pixel_q", pred, target, *settings, offset, *tail)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pred, target, offset, ctx.settings, ctx.tail = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(pred, target, offset)
        ctx.save_for_forward(pred, target, offset)

    @staticmethod
    def backward(ctx, grad_output, _):
        pred, target, offset = ctx.saved_tensors
        for_pred = for_target = None
        if ctx.needs_input_grad[0]:
            for_pred = _pixel_q_grad(grad_output, pred, target, offset, ctx.settings, ctx.tail)
        if ctx.needs_input_grad[1]:
            tail = ops.without_q(ctx.tail)
            for_target = _pixel_q_grad(grad_output, target, pred, offset, ctx.settings, tail)
        return for_pred, for_target, None, None, None

    @staticmethod
    def jvp(ctx, pred_tangent, target_tangent, *_):
        pred, target, offset = ctx.saved_tensors
        weight, reduction, engine = ctx.tail
        each = ops.value_dtype(pred, target)
        ones = torch.ones(pred.shape[0], dtype=each, device=pred.device)
        tail = (weight, "none", engine)
        change = torch.zeros_like(ones)
        if pred_tangent is not None:
            gradient = _pixel_q_grad(ones, pred, target, offset, ctx.settings, tail)
            change = change + (gradient.to(each) * pred_tangent.to(each)).sum((1, 2, 3))
        if target_tangent is not None:
            gradient = _pixel_q_grad(ones, target, pred, offset, ctx.settings, ops.without_q(tail))
            change = change + (gradient.to(each) * target_tangent.to(each)).sum((1, 2, 3))
        return reference.reduce(change, reduction), None

    @staticmethod
    def vmap(info, in_dims, pred, target, offset, settings, tail):
        weight, reduction, engine = tail
        _refuse_batched_offset(in_dims[2])
        pred = _fold(pred, in_dims[0], info.batch_size)
        target = _fold(target, in_dims[1], info.batch_size)
        loss, terms = PixelQ.apply(pred, target, offset, settings, (weight, "none", engine))
        loss = _reduce_inner(loss, info.batch_size, reduction)
        terms = torch.stack([_reduce_inner(term, info.batch_size, reduction) for term in terms], 1)
        return (loss, terms), (0, 0)


class PixelQGrad(_Function):
    """`qkernel::pixel_q_grad` of (grad_output, pred, target, offset, settings, tail)."""

    @staticmethod
    def forward(grad_output, pred, target, offset, settings, tail):
        return ops.call("pixel_q_grad", grad_output, pred, target, *settings, offset, *tail)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_output, pred, target, offset, ctx.settings, ctx.tail = inputs
        ctx.save_for_backward(grad_output, pred, target, offset)
        ctx.save_for_forward(grad_output, pred, target, offset)

    @staticmethod
    def backward(ctx, v):
        grad_output, pred, target, offset = ctx.saved_tensors
        arguments = (*ctx.settings, offset, *ctx.tail)
        return *ops.pixel_q_second(v, grad_output, pred, target, arguments), None, None, None

    @staticmethod
    def jvp(ctx, grad_output_tangent, pred_tangent, target_tangent, *_):
        grad_output, pred, target, offset = ctx.saved_tensors
        change = torch.zeros_like(pred)
        if grad_output_tangent is not None:
            gradient = _pixel_q_grad(grad_output_tangent, pred, target, offset, ctx.settings, ctx.tail)
            change = change + gradient
        if pred_tangent is not None:
            arguments = (*ctx.settings, offset, *ctx.tail)
            change = change + ops.pixel_q_second(pred_tangent, grad_output, pred, target, arguments)[1]
        if target_tangent is not None:
            # By the same symmetry: the target's gradient along its tangent, differentiated for pred.
            arguments = (*ctx.settings, offset, *ops.without_q(ctx.tail))
            change = change + ops.pixel_q_second(target_tangent, grad_output, target, pred, arguments)[2]
        return change

    @staticmethod
    def vmap(info, in_dims, grad_output, pred, target, offset, settings, tail):
        weight, reduction, engine = tail
        _refuse_batched_offset(in_dims[3])
        pred = _fold(pred, in_dims[1], info.batch_size)
        target = _fold(target, in_dims[2], info.batch_size)
        each = _spread(grad_output, in_dims[0], info.batch_size, pred.shape[0], reduction)
        gradient = PixelQGrad.apply(each, pred, target, offset, settings, (weight, "none", engine))
        return gradient.unflatten(0, (info.batch_size, -1)), 0


def q(x: Tensor, offset: Tensor | None, settings: tuple, tail: tuple) -> Tensor:
    """`qkernel::q`, through the Function where somebody may differentiate it."""
    if _is_watched(x):
        return Q.apply(x, offset, settings, tail)
    return ops.call("q", x, *settings, offset, *tail)


def pixel_q(
    pred: Tensor, target: Tensor, offset: Tensor | None, settings: tuple, tail: tuple
) -> tuple[Tensor, Tensor]:
    """`qkernel::pixel_q`, through the Function where somebody may differentiate it."""
    if _is_watched(pred, target):
        return PixelQ.apply(pred, target, offset, settings, tail)
    return ops.call("pixel_q", pred, target, *settings, offset, *tail)


def is_transformed() -> bool:
    """Whether a transform of torch.func is at work, or forward mode."""
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def _is_watched(*tensors: Tensor) -> bool:
    if torch._C._is_tracing():
        # torch.jit.trace sees into no Function, but knows the ops, which bring their own backward.
        return False
    if torch.is_grad_enabled():
        for t in tensors:
            if t.requires_grad:
                return True
    return is_transformed()


def _q_grad(grad_output, x, offset, settings, tail):
    if _differentiated():
        return QGrad.apply(grad_output, x, offset, settings, tail)
    return ops.call("q_grad", grad_output, x, *settings, offset, *tail)


def _pixel_q_grad(grad_output, pred, target, offset, settings, tail):
    if _differentiated():
        return PixelQGrad.apply(grad_output, pred, target, offset, settings, tail)
    return ops.call("pixel_q_grad", grad_output, pred, target, *settings, offset, *tail)


def _differentiated() -> bool:
    # Grad mode in a backward means that the gradient is itself to be differentiated.
    return torch.is_grad_enabled() or is_transformed()


# Batching: N images in each of B samples are B N images, reduced per image and then per sample.


def _fold(x: Tensor, dim: int | None, batch: int) -> Tensor:
    x = x.expand(batch, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def _reduce_inner(values: Tensor, batch: int, reduction: str) -> Tensor:
    values = values.view(batch, -1) if values.numel() else values.new_empty(batch, 0)
    if reduction == "mean":
        return values.mean(1)
    return values.sum(1) if reduction == "sum" else values


def _spread(grad_output: Tensor, dim: int | None, batch: int, images: int, reduction: str) -> Tensor:
    """The gradient for each of all images, of the one for each sample."""
    each = images // batch
    grad_output = (
        grad_output.expand(batch, *grad_output.shape) if dim is None else grad_output.movedim(dim, 0)
    )
    if reduction == "none":
        return grad_output.reshape(images)
    if reduction == "mean":
        grad_output = grad_output / each
    return grad_output[:, None].expand(batch, each).reshape(images)


def _refuse_batched_offset(dim: int | None) -> None:
    if dim is not None:
        raise NotImplementedError(
            "under vmap the patch-grid offset must be the same for all samples: "
            "use vmap(..., randomness='same'), or pass an offset that is not batched"
        )

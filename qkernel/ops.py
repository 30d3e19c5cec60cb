"""The operators `torch.ops.qkernel.*`: schemas, shapes for tracing, autograd.

Two pairs of a value and its gradient: `q` / `q_grad`, and `pixel_q` / `pixel_q_grad` with the fused pixel
term. A value is the finished loss: weight and reduction are arguments, so nothing is launched around it. The
second derivative is the reference's. Arguments are checked in `functional`, in words a user understands.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import reference
from .definition import Definition
from .engines import choose

_DEFINITION = "str definition, int patch_size, float delta, float data_range, float eps, Tensor? offset"
_PIXEL = "str pixel, float charbonnier_eps"
_LOSS = "float weight, str reduction, str engine"

_library = torch.library.Library("qkernel", "DEF")
_library.define(f"q(Tensor x, {_DEFINITION}, {_LOSS}) -> Tensor")
_library.define(f"q_grad(Tensor grad_output, Tensor x, {_DEFINITION}, {_LOSS}) -> Tensor")
_library.define(f"pixel_q(Tensor pred, Tensor target, {_PIXEL}, {_DEFINITION}, {_LOSS}) -> (Tensor, Tensor)")
_library.define(
    f"pixel_q_grad(Tensor grad_output, Tensor pred, Tensor target, {_PIXEL}, {_DEFINITION}, {_LOSS})"
    " -> Tensor"
)


@functools.lru_cache(maxsize=256)
def definition_of(name: str, patch_size: int, delta: float, data_range: float, eps: float) -> Definition:
    """The definition of these arguments; checked once."""
    return Definition(name, patch_size, delta, data_range, eps)


def _q(x, definition, patch_size, delta, data_range, eps, offset, weight, reduction, engine):
    d = definition_of(definition, patch_size, delta, data_range, eps)
    return choose(engine, x, d).q(x, d, offset, weight, reduction)


def _q_grad(
    grad_output, x, definition, patch_size, delta, data_range, eps, offset, weight, reduction, engine
):
    d = definition_of(definition, patch_size, delta, data_range, eps)
    return choose(engine, x, d).q_grad(grad_output, x, d, offset, weight, reduction)


def _pixel_q(
    pred,
    target,
    pixel,
    charbonnier_eps,
    definition,
    patch_size,
    delta,
    data_range,
    eps,
    offset,
    weight,
    reduction,
    engine,
):
    d = definition_of(definition, patch_size, delta, data_range, eps)
    return choose(engine, pred, d, target).pixel_q(
        pred, target, pixel, charbonnier_eps, d, offset, weight, reduction
    )


def _pixel_q_grad(
    grad_output,
    pred,
    target,
    pixel,
    charbonnier_eps,
    definition,
    patch_size,
    delta,
    data_range,
    eps,
    offset,
    weight,
    reduction,
    engine,
):
    d = definition_of(definition, patch_size, delta, data_range, eps)
    return choose(engine, pred, d, target).pixel_q_grad(
        grad_output, pred, target, pixel, charbonnier_eps, d, offset, weight, reduction
    )


_PLAIN = (Tensor, torch.nn.Parameter)
_IMPLEMENTATIONS = {"q": _q, "q_grad": _q_grad, "pixel_q": _pixel_q, "pixel_q_grad": _pixel_q_grad}
for _name, _implementation in _IMPLEMENTATIONS.items():
    _library.impl(_name, _implementation, "CompositeExplicitAutograd")


def call(name: str, *arguments):
    """The op called ``name``; for plain tensors that nobody is watching, its implementation at once.

    A Python op takes longer to dispatch than a small image to compute. Called from within a Function, there
    is nothing left for the dispatcher to do, unless a mode (tracing, fake tensors, flop counters), a tensor
    subclass or a tensor that is more than its memory wants to see it.
    """
    watched = torch._C._len_torch_dispatch_stack() or torch._C._is_tracing()
    if not watched and _are_their_memory(arguments[:3]):
        return _IMPLEMENTATIONS[name](*arguments)
    return getattr(torch.ops.qkernel, name)(*arguments)


def _are_their_memory(arguments: tuple) -> bool:
    """Whether an engine may go by the pointers of all tensors, and nothing else makes up their values.

    There is none to zero, meta and sparse tensors and to the wrappers of vmap, of is_grads_batched and of
    torch.func (which outlive their transform in what a vjp saved); and a lazy negative is not what is there.
    """
    try:
        for x in arguments:
            if isinstance(x, Tensor) and (type(x) not in _PLAIN or not x.data_ptr() or x.is_neg()):
                return False
    except RuntimeError:
        return False
    return True


# Shapes, for tracing


def value_dtype(*tensors: Tensor) -> torch.dtype:
    """Values are float32, and float64 where an input is float64."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


@torch.library.register_fake("qkernel::q", lib=_library)
def _(x, *arguments):
    reduction = arguments[-2]
    return x.new_empty(x.shape[:1] if reduction == "none" else (), dtype=value_dtype(x))


@torch.library.register_fake("qkernel::q_grad", lib=_library)
def _(grad_output, x, *arguments):
    return torch.empty_like(x)


@torch.library.register_fake("qkernel::pixel_q", lib=_library)
def _(pred, target, *arguments):
    shape = pred.shape[:1] if arguments[-2] == "none" else ()
    dtype = value_dtype(pred, target)
    return pred.new_empty(shape, dtype=dtype), pred.new_empty((2, *shape), dtype=dtype)


@torch.library.register_fake("qkernel::pixel_q_grad", lib=_library)
def _(grad_output, pred, target, *arguments):
    return torch.empty_like(pred)


# Derivatives. `arguments` are an op's arguments after its tensors, in the order of the schema.


def q_reference(x: Tensor, arguments: tuple) -> Tensor:
    """`q` by the reference, for derivatives beyond the first."""
    *definition, offset, weight, reduction, _ = arguments
    per_image = reference.q_per_image(x, definition_of(*definition), offset)
    return weight * reference.reduce(per_image, reduction)


def pixel_q_reference(pred: Tensor, target: Tensor, arguments: tuple) -> Tensor:
    """`pixel_q` by the reference, for derivatives beyond the first."""
    pixel, charbonnier_eps, *definition, offset, weight, reduction, _ = arguments
    per_image = reference.pixel_per_image(pred, target, pixel, charbonnier_eps)
    per_image = per_image - weight * reference.q_per_image(pred, definition_of(*definition), offset)
    return reference.reduce(per_image, reduction)


def q_second(v: Tensor, grad_output: Tensor, x: Tensor, arguments: tuple) -> tuple[Tensor, Tensor]:
    """Gradients of <q_grad, v> for grad_output and x."""

    def gradient(grad_output, x):
        _, pull = torch.func.vjp(lambda x: q_reference(x, arguments), x)
        return pull(grad_output)[0]

    return torch.func.vjp(gradient, grad_output, x)[1](v)


def pixel_q_second(
    v: Tensor, grad_output: Tensor, pred: Tensor, target: Tensor, arguments: tuple
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of <pixel_q_grad, v> for grad_output, pred and target."""

    def gradient(grad_output, pred, target):
        _, pull = torch.func.vjp(lambda pred: pixel_q_reference(pred, target, arguments), pred)
        return pull(grad_output)[0]

    return torch.func.vjp(gradient, grad_output, pred, target)[1](v)


def without_q(tail: tuple) -> tuple:
    """The tail with which `pixel_q_grad`, pred and target exchanged, gives the gradient for the target.

    The pixel terms are even in pred - target, and Q does not see the target: so its weight is 0.
    """
    _, reduction, engine = tail
    return 0.0, reduction, engine


def _setup(tensors: int):
    def setup_context(ctx, inputs, output):
        offset = inputs[-4]
        ctx.save_for_backward(*inputs[:tensors], offset)
        ctx.arguments = (*inputs[tensors:-4], None, *inputs[-3:])

    return setup_context


def _saved(ctx) -> tuple[list[Tensor], tuple]:
    *tensors, offset = ctx.saved_tensors
    *head, _, weight, reduction, engine = ctx.arguments
    return tensors, (*head, offset, weight, reduction, engine)


def _q_backward(ctx, grad_output):
    (x,), arguments = _saved(ctx)
    return torch.ops.qkernel.q_grad(grad_output, x, *arguments), *(None,) * len(arguments)


def _q_grad_backward(ctx, v):
    (grad_output, x), arguments = _saved(ctx)
    return *q_second(v, grad_output, x, arguments), *(None,) * len(arguments)


def _pixel_q_backward(ctx, grad_output, _):
    (pred, target), arguments = _saved(ctx)
    for_pred = for_target = None
    if ctx.needs_input_grad[0]:
        for_pred = torch.ops.qkernel.pixel_q_grad(grad_output, pred, target, *arguments)
    if ctx.needs_input_grad[1]:
        for_target = torch.ops.qkernel.pixel_q_grad(
            grad_output, target, pred, *arguments[:-3], *without_q(arguments[-3:])
        )
    return for_pred, for_target, *(None,) * len(arguments)


def _pixel_q_grad_backward(ctx, v):
    (grad_output, pred, target), arguments = _saved(ctx)
    return *pixel_q_second(v, grad_output, pred, target, arguments), *(None,) * len(arguments)


for _name, _backward, _tensors in (
    ("q", _q_backward, 1),
    ("q_grad", _q_grad_backward, 2),
    ("pixel_q", _pixel_q_backward, 2),
    ("pixel_q_grad", _pixel_q_grad_backward, 3),
):
    torch.library.register_autograd(
        f"qkernel::{_name}", _backward, setup_context=_setup(_tensors), lib=_library
    )

"""Transforms of torch.func and forward mode inside a compiled function: the same as without compilation."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, jvp, vjp, vmap

from qkernel import mae_q_loss, q_metric


def _image(images=2):
    make = torch.Generator().manual_seed(0)
    return torch.rand(images, 1, 9, 11, generator=make) * 0.05 + torch.arange(11) / 8


LOSSES = {
    "q": lambda x: q_metric(x, patch_size=4, offset=(1, 2)),
    "mae_q": lambda x: mae_q_loss(x, x.detach() * 0.9, 0.5, "mse", return_terms=True, patch_size=4)[0],
}


def _dual(loss):
    def tangent(x, v):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(loss(forward_ad.make_dual(x, v))).tangent

    return tangent


TRANSFORMS = {
    "jvp": lambda loss: lambda x, v: jvp(loss, (x,), (v,)),
    "dual": _dual,
    "grad": lambda loss: lambda x, v: grad(loss)(x),
    "vjp": lambda loss: lambda x, v: vjp(loss, x)[1](torch.ones(()))[0],
    "vmap of grad": lambda loss: lambda x, v: vmap(grad(lambda one: loss(one[None])))(x),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_inside_a_compiled_function(transform, loss):
    torch._dynamo.reset()
    x = _image()
    v = torch.rand_like(x)
    function = transform(loss)
    want = function(x, v)
    got = torch.compile(function, fullgraph=True, backend="aot_eager")(x, v)
    assert all((w != 0).any() for w in (want if isinstance(want, tuple) else (want,)))
    torch.testing.assert_close(got, want)


def test_a_compiled_loss_is_traced_anew_for_dual_tensors():
    torch._dynamo.reset()
    x = _image()
    v = torch.rand_like(x)
    compiled = torch.compile(LOSSES["q"], backend="aot_eager")
    assert compiled(x) == LOSSES["q"](x)
    torch.testing.assert_close(_dual(compiled)(x, v), _dual(LOSSES["q"])(x, v))


def test_half_precision_rounds_a_gradient_once():
    torch._dynamo.reset()
    x = _image().bfloat16()
    got = torch.compile(grad(LOSSES["mae_q"]), fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(got, grad(LOSSES["mae_q"])(x), rtol=torch.finfo(x.dtype).eps, atol=1e-7)

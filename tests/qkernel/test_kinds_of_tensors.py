"""Tensors that are more than what lies in their memory, and memory that is not on the default device."""

from __future__ import annotations

import pytest
import torch

from qkernel import MAEQLoss, QLoss, mae_q_loss, q_metric


def _pair(*shape, device="cpu"):
    ramp = torch.arange(shape[-1], device=device) / 8
    return torch.rand(*shape, device=device) * 0.3 + ramp, torch.rand(*shape, device=device)


def test_images_need_not_be_on_the_default_device(engine, device):
    pred, target = _pair(2, 3, 16, 24, device=device)
    x = pred.requires_grad_()
    offset = torch.tensor([1, 2], device=device)

    def everything():
        losses = [
            MAEQLoss(0.1, engine=engine)(x, target),
            QLoss(offset=offset, reduction="none", engine=engine)(x).sum(),
            q_metric(x.detach(), engine=engine, offset=(1, 2)),
        ]
        return *losses, torch.autograd.grad(sum(losses), x)[0]

    want = everything()
    with torch.device("meta"):
        got = everything()
    assert want[2] > 0 and all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def _negative(x):
    """The same values, of which the memory holds the negatives."""
    lazy = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert lazy.is_neg()
    return lazy


@pytest.mark.parametrize("which", ["pred", "target", "grad_output"])
def test_lazy_negatives_are_what_they_stand_for(which, engine, device):
    pred, target = _pair(2, 1, 16, 24, device=device)
    grad_output = torch.rand(2, device=device)

    def both(pred, target, grad_output):
        pred = pred.detach().requires_grad_()
        loss = mae_q_loss(pred, target, 0.1, reduction="none", engine=engine)
        return loss, torch.autograd.grad(loss, pred, grad_output)[0]

    want = both(pred, target, grad_output)
    lazy = {"pred": pred, "target": target, "grad_output": grad_output}
    lazy[which] = _negative(lazy[which])
    for a, b in zip(both(**lazy), want, strict=True):
        torch.testing.assert_close(a, b)


def test_zero_tensors_are_zeros(engine, device):
    x, _ = _pair(2, 1, 16, 24, device=device)
    zeros = torch._efficientzerotensor(x.shape, device=device)
    assert q_metric(zeros, engine=engine) == 0
    torch.testing.assert_close(
        mae_q_loss(x, zeros, engine=engine), mae_q_loss(x, torch.zeros_like(x), engine=engine)
    )


def test_gradients_of_a_batch_of_directions_at_once(engine, device):
    pred, target = _pair(2, 1, 16, 24, device=device)
    x = pred.requires_grad_()
    loss = mae_q_loss(x, target, 0.1, reduction="none", engine=engine)
    directions = torch.eye(2, device=device)
    want = torch.stack([torch.autograd.grad(loss, x, d, retain_graph=True)[0] for d in directions])
    got = torch.autograd.grad(loss, x, directions, is_grads_batched=True)[0]
    torch.testing.assert_close(got, want)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: mae_q_loss(x, target, 0.1, reduction="none", engine=engine), pred.detach(), vectorize=True
    )
    torch.testing.assert_close(jacobian, want)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("requires_grad", [False, True])
def test_torch_jit_traces_the_op(requires_grad, engine, device):
    x, y = _pair(2, 1, 16, 24, device=device)
    x, y = x.requires_grad_(requires_grad), (x.detach() + 0.1 * y).requires_grad_(requires_grad)
    loss = QLoss(0.5, engine=engine)
    traced = torch.jit.trace(loss, x)
    value, want = traced(y), loss(y)
    assert value == want < 0
    if requires_grad:
        torch.testing.assert_close(torch.autograd.grad(value, y)[0], torch.autograd.grad(want, y)[0])


def test_meta_tensors_have_shapes_and_no_warning(recwarn):
    x = torch.empty(2, 3, 16, 24, device="meta", requires_grad=True)
    loss, terms = MAEQLoss(reduction="none", return_terms=True, offset="random")(x, x.detach())
    loss.sum().backward()
    assert loss.is_meta and loss.shape == terms["q"].shape == (2,)
    assert x.grad.is_meta and x.grad.shape == x.shape
    assert not recwarn.list

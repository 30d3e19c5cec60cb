"""The loss modules: what they compute, their state, and that they train."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from qkernel import MAEQLoss, QLoss, mae_q_loss, q_loss, q_metric, reference

from ..conftest import takes
from ..oracle import DEFINITIONS, LUMA, oracle, paste
from ..patches import image, stack

PIXEL = {
    "l1": lambda pred, target, eps: (pred - target).abs(),
    "mse": lambda pred, target, eps: (pred - target).square(),
    "charbonnier": lambda pred, target, eps: ((pred - target).square() + eps**2).sqrt(),
}


def _pair(images=2, channels=1, height=27, width=43, dtype=torch.float64, device="cpu"):
    pixels = stack(2 * images, channels, height, width)
    pred, target = torch.tensor(pixels, device=device).to(dtype).chunk(2)
    return pred.clone().requires_grad_(), target.clone().requires_grad_()


def _composed(pred, target, weight, pixel, reduction, engine, definition="zhu2010", eps=0.02):
    """The loss from torch's own operations and the metric, whose accuracy is tested elsewhere."""
    term = PIXEL[pixel](pred, target, eps).mean((1, 2, 3))
    q = q_metric(pred, definition, reduction="none", engine=engine)
    loss = term - weight * q
    return loss if reduction == "none" else getattr(loss, reduction)()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("pixel", PIXEL)
@pytest.mark.parametrize("channels", [1, 3])
def test_fused_equals_composed(engine, device, channels, pixel, reduction):
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        if not takes(engine, dtype):
            continue
        for weight in (0.01, 0.0, 1.0, -0.5):
            pred, target = _pair(3, channels, dtype=dtype, device=device)
            loss = MAEQLoss(weight, pixel, 0.02, reduction=reduction, engine=engine)(pred, target)
            composed = _composed(pred, target, weight, pixel, reduction, engine)
            torch.testing.assert_close(loss, composed, rtol=rtol, atol=rtol)
            grad_output = torch.rand_like(loss)
            got = torch.autograd.grad(loss, (pred, target), grad_output)
            want = torch.autograd.grad(composed, (pred, target), grad_output)
            for name, a, b in zip(("pred", "target"), got, want, strict=True):
                assert (a - b).abs().max() <= 5 * rtol * b.abs().max(), name


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("pixel", PIXEL)
def test_fused_agrees_with_the_svd(engine, device, definition, pixel):
    pred, target = _pair(2, 3, dtype=torch.float32, device=device)
    weight = 0.3
    loss = MAEQLoss(weight, pixel, 0.02, definition=definition, engine=engine)(pred, target)
    loss.backward()
    exact, other = pred.detach().cpu().double().requires_grad_(), target.detach().cpu().double()
    term = PIXEL[pixel](exact, other, 0.02).mean()
    term.backward()
    q = oracle(exact.detach().numpy(), definition)
    assert loss.item() == pytest.approx(term.item() - weight * q.value.mean(), rel=1e-5)
    per_pixel = paste(q.gradient, *pred.shape[2:]) * weight / q.q.size
    want = exact.grad.numpy() - per_pixel[:, None] * LUMA.reshape(1, 3, 1, 1)
    got = pred.grad.cpu().double().numpy()
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def test_fused_agrees_with_the_reference(engine, device):
    pred, target = _pair(2, 3, dtype=torch.float32, device=device)
    per_image = reference.pixel_per_image(pred, target, "l1", 0.0) - 0.01 * reference.q_per_image(
        pred, QLoss().definition
    )
    loss = MAEQLoss(engine=engine)(pred, target)
    torch.testing.assert_close(loss, per_image.mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("pixel", PIXEL)
def test_weight_0_is_the_pixel_loss_alone(engine, device, pixel):
    pred, target = _pair(dtype=torch.float32, device=device)
    loss = MAEQLoss(0, pixel, engine=engine)(pred, target)
    want = PIXEL[pixel](pred, target, 1e-3).mean()
    torch.testing.assert_close(loss, want, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        *(torch.autograd.grad(v, pred)[0] for v in (loss, want)), rtol=1e-5, atol=1e-10
    )


def test_mae_has_gradient_0_where_pred_is_target(engine, device):
    pred, target = _pair(dtype=torch.float32, device=device)
    with torch.no_grad():
        pred[..., ::2] = target[..., ::2]
    for pixel in PIXEL:
        got, other = torch.autograd.grad(MAEQLoss(0.0, pixel, engine=engine)(pred, target), (pred, target))
        assert (got[..., ::2] == 0).all() and (got[..., 1::2] != 0).all()
        assert torch.equal(got, -other)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_terms_are_detached_unweighted_and_make_up_the_loss(engine, device, reduction):
    pred, target = _pair(3, dtype=torch.float32, device=device)
    module = MAEQLoss(0.7, return_terms=True, reduction=reduction, engine=engine)
    loss, terms = module(pred, target)
    assert list(terms) == ["pixel", "q"]
    assert not any(t.requires_grad for t in terms.values())
    assert all(t.device == pred.device and t.shape == loss.shape for t in terms.values())
    torch.testing.assert_close(terms["pixel"] - 0.7 * terms["q"], loss.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(terms["q"], q_metric(pred.detach(), reduction=reduction, engine=engine))
    module.return_terms = False
    assert torch.equal(module(pred, target), loss)
    loss.sum().backward()
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize("target_dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pred_dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_pred_and_target_may_differ_in_dtype(engine, device, pred_dtype, target_dtype):
    for dtype in (pred_dtype, target_dtype):
        if not takes(engine, dtype):
            pytest.skip(f"{engine} takes no {dtype}")
    pred, target = (t.detach() for t in _pair(device=device))
    pred, target = pred.to(pred_dtype).requires_grad_(), target.to(target_dtype).requires_grad_()
    loss = MAEQLoss(0.1, engine=engine)(pred, target)
    wide = torch.float64 if torch.float64 in (pred_dtype, target_dtype) else torch.float32
    assert loss.dtype == wide
    exact = [t.detach().double().requires_grad_() for t in (pred, target)]
    want = MAEQLoss(0.1, engine="eager")(*(t.to("cpu") for t in exact))
    torch.testing.assert_close(loss.double().cpu(), want, rtol=1e-6, atol=0)
    loss.backward()
    want.backward()
    for t, other in ((pred, exact[0]), (target, exact[1])):
        assert t.grad.dtype == t.dtype
        # Half an ulp for the one rounding, and float32 before it.
        rounding = torch.finfo(t.dtype).eps / 2 if t.dtype.itemsize == 2 else 0
        bound = rounding * other.grad.abs() + 2e-5 * other.grad.abs().max() + 1e-7 * rounding
        assert ((t.grad.double() - other.grad).abs() <= bound).all()


def test_strides_of_pred_and_target_may_differ(engine, device):
    pred, target = (t.detach() for t in _pair(2, 3, dtype=torch.float32, device=device))
    want = MAEQLoss(0.1, engine=engine)(pred, target)
    layouts = (
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        lambda t: t.repeat_interleave(2, 3)[..., ::2],
    )
    for of_pred in layouts:
        for of_target in layouts:
            a, b = of_pred(pred).requires_grad_(), of_target(target).requires_grad_()
            loss = MAEQLoss(0.1, engine=engine)(a, b)
            torch.testing.assert_close(loss, want, rtol=2e-6, atol=0)
            for t, gradient in zip((a, b), torch.autograd.grad(loss, (a, b)), strict=True):
                assert gradient.stride() == torch.empty_like(t).stride()
                assert gradient.isfinite().all()


def test_nan_in_gives_nan_out(engine, device):
    for which in range(2):
        pair = [t.detach().clone() for t in _pair(2, dtype=torch.float32, device=device)]
        # Outside the whole patches too: the pixel term sees every pixel.
        pair[which][1, 0, -1, -1] = float("nan")
        values = MAEQLoss(reduction="none", engine=engine)(*pair)
        assert values.isnan().tolist() == [False, True]


def test_modules_are_the_functions(engine, device):
    pred, target = _pair(dtype=torch.float32, device=device)
    settings = {
        "definition": "pythonq",
        "patch_size": 5 if takes(engine, patch_size=5) else 4,
        "delta": 0.01,
        "data_range": 2.0,
        "eps": 0.01,
        "offset": (2, 1),
        "reduction": "sum",
        "engine": engine,
    }
    assert QLoss(0.3, **settings)(pred) == q_loss(pred, 0.3, **settings)
    got = MAEQLoss(0.3, "charbonnier", 0.05, **settings)(pred, target)
    assert got == mae_q_loss(pred, target, 0.3, "charbonnier", 0.05, **settings)


@pytest.mark.parametrize(
    "module", [QLoss(0.5, "mmsp2024", 4), MAEQLoss(0.02, "mse", offset="random", eps=0.001)]
)
def test_modules_copy_pickle_and_print(module):
    assert repr(copy.deepcopy(module)) == repr(pickle.loads(pickle.dumps(module))) == repr(module)
    for shown in (
        f"weight={module.weight}",
        f"definition='{module.definition.name}'",
        "offset=",
        "engine='auto'",
    ):
        assert shown in repr(module)
    assert not module.state_dict() and not list(module.parameters())
    x = torch.rand(1, 1, 20, 20) + torch.arange(20) / 2
    torch.manual_seed(0)
    want = module(x, x)
    torch.manual_seed(0)
    assert copy.deepcopy(module)(x, x) == want < 0


@pytest.mark.parametrize("make", [QLoss, MAEQLoss])
def test_an_offset_tensor_goes_where_the_module_goes(make):
    module = make(offset=torch.tensor([1, 2]))
    x = torch.rand(1, 1, 20, 20) + torch.arange(20) / 2
    assert copy.deepcopy(module)(x, x) == module(x, x) == make(offset=(1, 2))(x, x) != make()(x, x)
    assert not module.state_dict() and module.half().offset.dtype == torch.int64
    assert module.to("meta").offset.is_meta


def test_the_loss_falls_as_the_picture_gets_sharper():
    x = torch.tensor(image("camera", 128, 128, 8), dtype=torch.float32)[None, None]
    blurred = nn.functional.avg_pool2d(x, 5, 1, 2)
    for definition in DEFINITIONS:
        loss = QLoss(definition=definition)
        assert loss(x) < loss(blurred) < 0


@pytest.mark.parametrize("loss", [nn.L1Loss(), MAEQLoss(weight=0.01)], ids=["L1Loss", "MAEQLoss"])
def test_drops_into_a_training_loop(loss):
    """A small network learns to undo a blur; the loop does not know which loss it has."""
    torch.manual_seed(1)
    sharp = torch.tensor(image("camera", 128, 128, 8), dtype=torch.float32)[None, None]
    blurred = nn.functional.avg_pool2d(sharp, 3, 1, 1)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(blurred + network(blurred), sharp)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0] - 0.1 * abs(losses[0])
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_ascending_q_sharpens_a_picture(engine, device):
    x = torch.tensor(image("camera", 64, 64, 8), dtype=torch.float32, device=device)[None, None]
    x = nn.functional.avg_pool2d(x, 3, 1, 1).requires_grad_()
    before = q_metric(x, engine=engine).item()
    for _ in range(5):
        (gradient,) = torch.autograd.grad(QLoss(engine=engine)(x), x)
        x = (x - 1.0 * gradient).detach().requires_grad_()
    assert q_metric(x, engine=engine) > 1.02 * before

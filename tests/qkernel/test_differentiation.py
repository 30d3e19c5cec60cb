"""Derivatives of every order and by every transform of torch.func."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from qkernel import mae_q_loss, q_loss, q_metric

from ..conftest import takes
from ..oracle import DEFINITIONS
from ..patches import stack

N = (3, 4, 5, 8, 16)


@pytest.fixture
def float64_engine(engine):
    """Skips the engines without float64: finite differences in float32 say little."""
    if not takes(engine, torch.float64):
        pytest.skip(f"{engine} takes no float64")


by_finite_differences = pytest.mark.usefixtures("float64_engine")


def _widest(engine):
    """The dtype for comparisons that need no finite differences."""
    return torch.float64 if takes(engine, torch.float64) else torch.float32


def _image(n, height=None, width=None, images=1, channels=1, device="cpu", seed=0, dtype=torch.float64):
    """Images with every patch well above the threshold: finite differences must not cross it."""
    height, width = height or n + 1, width or n + 2
    return torch.tensor(
        stack(images, channels, height, width, n, seed), device=device, dtype=dtype
    ).requires_grad_()


def _check(function, *inputs, n=8, second=True):
    # Every element for small patches, random projections for large ones and for what else takes long.
    assert gradcheck(function, inputs, fast_mode=n >= 8)
    if second:
        assert gradgradcheck(function, inputs, fast_mode=n > 3 or len(inputs) > 1)


@pytest.mark.parametrize("n", N)
@pytest.mark.parametrize("definition", DEFINITIONS)
@by_finite_differences
def test_gradients_of_the_metric(engine, device, definition, n):
    x = _image(n, device=device)
    _check(lambda x: q_metric(x, definition, n, engine=engine), x, n=n)


@pytest.mark.parametrize("n", N)
@pytest.mark.parametrize("definition", DEFINITIONS)
@by_finite_differences
def test_gradients_of_the_op(engine, device, definition, n):
    x = _image(n, device=device)
    tail = (definition, n, 1e-3, 2.0, 0.01, None, -0.7, "sum", engine)
    _check(lambda x: torch.ops.qkernel.q(x, *tail), x, n=n)


@pytest.mark.parametrize("pixel", ["l1", "mse", "charbonnier"])
@pytest.mark.parametrize("n", [3, 8])
@by_finite_differences
def test_gradients_of_the_fused_loss(engine, device, n, pixel):
    for definition in DEFINITIONS:
        pred, target = _image(n, device=device), _image(n, device=device, seed=1)
        _check(
            lambda p, t, d=definition: mae_q_loss(
                p, t, 0.3, pixel, 0.1, definition=d, patch_size=n, engine=engine
            ),
            pred,
            target,
            n=n,
        )


@pytest.mark.parametrize("pixel", ["l1", "charbonnier"])
@by_finite_differences
def test_gradients_of_the_fused_op(engine, device, pixel):
    pred, target = _image(4, device=device), _image(4, device=device, seed=1)
    tail = (pixel, 0.1, "zhu2010", 4, 1e-3, 1.0, 0.0, None, 0.3, "mean", engine)
    _check(lambda p, t: torch.ops.qkernel.pixel_q(p, t, *tail)[0], pred, target, n=4)


@by_finite_differences
def test_gradients_of_the_gradient_ops(engine, device):
    """q_grad and pixel_q_grad are differentiable in all their tensors, grad_output included."""
    pred, target = _image(3, device=device), _image(3, device=device, seed=1)
    grad_output = torch.tensor(0.7, dtype=torch.float64, device=device, requires_grad=True)
    tail = ("zhu2010", 3, 1e-3, 1.0, 0.0, None, 0.3, "mean", engine)
    assert gradcheck(lambda g, x: torch.ops.qkernel.q_grad(g, x, *tail), (grad_output, pred))
    assert gradcheck(
        lambda g, p, t: torch.ops.qkernel.pixel_q_grad(g, p, t, "charbonnier", 0.1, *tail),
        (grad_output, pred, target),
    )


@pytest.mark.parametrize("offset", [(1, 2), (2, 0)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@by_finite_differences
def test_gradients_with_offsets_reductions_and_rgb(engine, device, offset, reduction):
    x = _image(3, 7, 8, images=2, channels=3, device=device)
    offset = torch.tensor(offset, dtype=torch.int32, device=device)
    _check(lambda x: q_metric(x, patch_size=3, offset=offset, reduction=reduction, engine=engine), x)


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x.transpose(2, 3),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x[..., ::2],
        lambda x: x[..., 1:, 2:],
        lambda x: x.flip(2),
        lambda x: x[:, :1].expand(-1, 3, -1, -1),
    ],
    ids=["transposed", "channels_last", "every_second_column", "window", "flipped", "expanded"],
)
@by_finite_differences
def test_gradients_through_any_layout(engine, device, layout):
    x = _image(4, 6, 9, images=2, channels=3, device=device)
    _check(lambda x: q_metric(layout(x), patch_size=4, engine=engine), x)


def _hessian_vector(f, x, v):
    (gradient,) = torch.autograd.grad(f(x), x, create_graph=True)
    return torch.autograd.grad((gradient * v).sum(), x)[0]


@by_finite_differences
def test_hessian_vector_products_by_every_route(engine, device):
    x = _image(5, 11, 12, device=device)
    v = torch.rand_like(x)

    def f(x):
        return q_metric(x, patch_size=5, engine=engine)

    want = _hessian_vector(f, x, v)
    t = 1e-6
    ends = [(x + sign * t * v).detach().requires_grad_() for sign in (1, -1)]
    above, below = (torch.autograd.grad(f(end), end)[0] for end in ends)
    torch.testing.assert_close(want, (above - below) / (2 * t), rtol=1e-5, atol=1e-8)
    _, vjp = torch.func.vjp(torch.func.grad(f), x.detach())
    torch.testing.assert_close(vjp(v)[0], want)
    # Forward over reverse.
    _, got = torch.func.jvp(torch.func.grad(f), (x.detach(),), (v,))
    torch.testing.assert_close(got, want)
    for create_graph in (False, True):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, v)
            (gradient,) = torch.autograd.grad(f(dual), dual, create_graph=create_graph)
            torch.testing.assert_close(forward_ad.unpack_dual(gradient).tangent, want)


@by_finite_differences
def test_the_hessian_of_a_small_picture(engine, device):
    x = _image(3, 4, 5, device=device).detach()

    def f(x):
        return q_metric(x, patch_size=3, engine=engine)

    torch.testing.assert_close(torch.func.hessian(f)(x), torch.autograd.functional.hessian(f, x))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@by_finite_differences
def test_forward_over_reverse_of_the_fused_loss(engine, device, reduction):
    """Along tangents of pred, target and both, beside reverse over reverse."""
    pred, target = (_image(4, 9, 11, images=2, device=device, seed=s).detach() for s in (0, 3))
    v, w = torch.rand_like(pred), torch.rand_like(target)
    weights = torch.rand(2 if reduction == "none" else (), dtype=pred.dtype, device=device)

    def f(p, t):
        loss = mae_q_loss(
            p, t, 0.5, "charbonnier", 0.1, patch_size=4, reduction=reduction, offset=(1, 2), engine=engine
        )
        # Its square, so that the gradient that comes in has a tangent too.
        return (weights * loss.square()).sum()

    gradients = torch.func.grad(f, (0, 1))
    _, pull = torch.func.vjp(gradients, pred, target)
    of_v, of_w = pull((v, torch.zeros_like(w))), pull((torch.zeros_like(v), w))
    _, along_v = torch.func.jvp(lambda p: gradients(p, target), (pred,), (v,))
    _, along_w = torch.func.jvp(lambda t: gradients(pred, t), (target,), (w,))
    _, along_both = torch.func.jvp(gradients, (pred, target), (v, w))
    torch.testing.assert_close(along_v, of_v)
    torch.testing.assert_close(along_w, of_w)
    torch.testing.assert_close(along_both, tuple(a + b for a, b in zip(of_v, of_w, strict=True)))


def _losses(engine):
    target = torch.rand(2, 1, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return {
        "q": lambda x: q_loss(x, 0.5, patch_size=4, engine=engine),
        "q sum": lambda x: q_loss(x, 0.5, patch_size=4, reduction="sum", offset=(1, 2), engine=engine),
        "mae_q": lambda x: mae_q_loss(x, target.to(x), 0.5, patch_size=4, engine=engine),
    }


@pytest.mark.parametrize("name", ["q", "q sum", "mae_q"])
def test_func_transforms_equal_loops(engine, device, name):
    dtype = _widest(engine)
    loss = _losses(engine)[name]
    samples = torch.stack(
        [_image(4, 9, 11, images=2, device=device, seed=s, dtype=dtype).detach() for s in range(3)]
    )
    each = torch.stack([loss(x) for x in samples])
    gradients = torch.stack(
        [torch.autograd.grad(loss(y), y)[0] for x in samples for y in [x.clone().requires_grad_()]]
    )
    torch.testing.assert_close(torch.func.vmap(loss)(samples), each)
    torch.testing.assert_close(torch.func.grad(loss)(samples[0]), gradients[0])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(samples), gradients)
    torch.testing.assert_close(torch.func.vmap(loss, in_dims=2)(samples.movedim(0, 2)), each)
    torch.testing.assert_close(
        torch.func.vmap(torch.func.vmap(loss))(samples.expand(2, *samples.shape)), each.expand(2, 3)
    )
    value, vjp = torch.func.vjp(torch.func.vmap(loss), samples)
    torch.testing.assert_close(vjp(torch.ones_like(value))[0], gradients)


def test_vmap_of_none_reduction_keeps_the_values_of_each_image(engine, device):
    dtype = _widest(engine)
    samples = torch.stack(
        [_image(4, 9, 11, images=2, device=device, seed=s, dtype=dtype).detach() for s in range(3)]
    )

    def f(x):
        return q_metric(x, patch_size=4, reduction="none", engine=engine)

    torch.testing.assert_close(torch.func.vmap(f)(samples), torch.stack([f(x) for x in samples]))
    assert torch.func.vmap(f)(samples).shape == (3, 2)
    jacobian = torch.func.jacrev(f)(samples[0])
    want = torch.autograd.functional.jacobian(f, samples[0])
    assert jacobian.shape == (2, *samples[0].shape)
    torch.testing.assert_close(jacobian, want)
    # Each picture alone, mapped over, without a batch dimension.
    torch.testing.assert_close(torch.func.vmap(f)(samples[0]), f(samples[0]))


def test_vmap_over_the_target_or_the_pred_alone(engine, device):
    dtype = _widest(engine)
    pred, target = (
        _image(4, 9, 11, device=device, dtype=dtype).detach(),
        _image(4, 9, 11, device=device, seed=3, dtype=dtype).detach(),
    )
    others = torch.stack([target, target + 1, target * 2])

    def f(p, t):
        return mae_q_loss(p, t, patch_size=4, engine=engine)

    for in_dims, function in (((None, 0), lambda o: f(pred, o)), ((0, None), lambda o: f(o, target))):
        arguments = (pred, others) if in_dims[0] is None else (others, target)
        want = torch.stack([function(o) for o in others])
        torch.testing.assert_close(torch.func.vmap(f, in_dims)(*arguments), want)
        gradient = torch.func.vmap(torch.func.grad(f, (0, 1)), in_dims)(*arguments)
        for i, o in enumerate(others):
            p, t = (pred, o) if in_dims[0] is None else (o, target)
            for got, one in zip(gradient, torch.func.grad(f, (0, 1))(p, t), strict=True):
                torch.testing.assert_close(got[i], one)


def test_vmap_with_a_batched_offset_is_refused_in_words(engine, device):
    dtype = _widest(engine)
    samples = torch.stack([_image(4, 9, 11, device=device, seed=s, dtype=dtype).detach() for s in range(3)])
    offsets = torch.tensor([[0, 1], [1, 0], [2, 2]], dtype=torch.int32, device=device)

    def f(x, offset):
        return q_metric(x, patch_size=4, offset=offset, engine=engine)

    with pytest.raises(NotImplementedError, match="offset must be the same for all samples"):
        torch.func.vmap(f)(samples, offsets)
    want = torch.stack([f(x, offsets[1]) for x in samples])
    torch.testing.assert_close(torch.func.vmap(f, (0, None))(samples, offsets[1]), want)


def test_vmap_with_a_random_offset_draws_one_for_all(engine, device):
    samples = torch.rand(3, 1, 9, 11, device=device)

    def f(x):
        return q_metric(x, patch_size=4, delta=0.999, offset="random", engine=engine)

    with pytest.raises(RuntimeError, match=r"one grid for all samples: use vmap\(.*randomness='same'"):
        torch.func.vmap(f)(samples)
    torch.manual_seed(1)
    want = torch.stack([(torch.manual_seed(1), f(x))[1] for x in samples])
    torch.manual_seed(1)
    torch.testing.assert_close(torch.func.vmap(f, randomness="same")(samples), want)


@pytest.mark.parametrize("definition", DEFINITIONS)
@by_finite_differences
def test_jvp_is_the_directional_derivative(engine, device, definition):
    x, target = _image(4, 9, 11, images=2, device=device).detach(), _image(4, 9, 11, 2, device=device, seed=3)
    target = target.detach()
    v, w = torch.rand_like(x), torch.rand_like(x)

    def f(x, t, reduction="mean"):
        return mae_q_loss(
            x,
            t,
            0.5,
            "charbonnier",
            0.1,
            definition=definition,
            patch_size=4,
            reduction=reduction,
            engine=engine,
        )

    for reduction in ("mean", "sum", "none"):
        t = 1e-6
        want = (f(x + t * v, target + t * w, reduction) - f(x - t * v, target - t * w, reduction)) / (2 * t)
        value, got = torch.func.jvp(lambda a, b, r=reduction: f(a, b, r), (x, target), (v, w))
        torch.testing.assert_close(value, f(x, target, reduction))
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)
    _, alone = torch.func.jvp(lambda a: f(a, target), (x,), (v,))
    torch.testing.assert_close(alone, (torch.func.grad(f)(x, target) * v).sum())
    _, metric = torch.func.jvp(lambda a: q_metric(a, definition, 4, engine=engine), (x,), (v,))
    gradient = torch.func.grad(lambda a: q_metric(a, definition, 4, engine=engine))(x)
    torch.testing.assert_close(metric, (gradient * v).sum())


def test_forward_mode_through_dual_tensors_and_jacfwd(engine, device):
    dtype = _widest(engine)
    x = _image(4, 9, 11, images=2, device=device, dtype=dtype).detach()
    v = torch.rand_like(x)

    def f(x):
        return q_metric(x, patch_size=4, reduction="none", engine=engine)

    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, v)
        tangent = forward_ad.unpack_dual(f(dual)).tangent
    jacobian = torch.func.jacrev(f)(x)
    torch.testing.assert_close(tangent, (jacobian * v).sum((1, 2, 3, 4)))
    try:
        forward = torch.func.jacfwd(f)(x)
    except (RuntimeError, NotImplementedError):
        return
    torch.testing.assert_close(forward, jacobian)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_takes_inputs_as_they_are(engine, device, dtype):
    full = _image(8, 24, 40, device=device).detach().float()
    half = full.to(dtype)
    for x in (full, half):
        want = q_metric(x, engine=engine)
        fused = mae_q_loss(x, full, engine=engine)
        with torch.autocast(device.type, dtype=dtype):
            assert q_metric(x, engine=engine) == want
            y = x.clone().requires_grad_()
            loss = mae_q_loss(y, full, engine=engine)
            assert loss == fused and loss.dtype == torch.float32
            loss.backward()
        assert y.grad.dtype == x.dtype
        z = x.clone().requires_grad_()
        mae_q_loss(z, full, engine=engine).backward()
        assert torch.equal(y.grad, z.grad)


def test_a_gradient_can_be_taken_twice_and_not_after_the_graph_is_freed(engine, device):
    dtype = _widest(engine)
    x = _image(4, 9, 11, device=device, dtype=dtype)
    value = q_metric(x, patch_size=4, engine=engine)
    first = torch.autograd.grad(value, x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(value, x)[0])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, x)
    value = q_metric(x, patch_size=4, engine=engine)
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()

"""Each of the engine's kernels: which call takes which, and that each agrees with the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qkernel import MAEQLoss, q_metric
from qkernel.definition import Definition

from ..oracle import DEFINITIONS, oracle
from ..patches import FAMILIES, image
from ..qkernel.agreement import assert_gradients_agree, assert_values_agree

HALF = (torch.bfloat16, torch.float16)


def _path(cuda_engine, kernels, x, n=8, backward=False, pixel=None, target=None, offset=None):
    term = (0, 0.0, (0, 0, (0, 0, 0, 0))) if pixel is None else cuda_engine._pixel_term(pixel, 0.1, target)
    definition = cuda_engine._definition(Definition(patch_size=n))
    settings = cuda_engine._settings(offset, 1.0, "mean")
    return kernels.path(x.shape, cuda_engine._tensor(x), term, definition, settings, backward)


def test_calls_take_the_fastest_kernel_that_can(engine, kernels, cuda_engine):
    def path(x, *arguments, **settings):
        return _path(cuda_engine, kernels, x, *arguments, **settings)

    x = torch.empty(2, 1, 24, 40)
    for dtype in (torch.float32, *HALF):
        y = x.to(dtype)
        for backward in (False, True):
            assert path(y, backward=backward) == "direct"
            assert path(y, backward=backward, pixel="l1", target=y) == "direct"
            assert path(y, backward=backward, pixel="mse", target=y) == "staged"
            assert path(y, 4) == "staged"
            assert path(y, 5) == path(y, 16) == "loop"
    assert path(x, pixel="l1", target=x.bfloat16()) == "staged"
    assert path(x, pixel="l1", target=x.double()) == path(x.double()) == "loop"
    rgb = torch.empty(2, 3, 24, 40)
    assert path(rgb) == path(rgb, backward=True) == path(rgb, pixel="l1", target=rgb.flip(0)) == "direct"
    # Channels that begin in the middle of 16 bytes, other strides, other numbers of channels.
    assert path(torch.empty(2, 3, 24 * 40 + 1)[..., :-1].unflatten(2, (24, 40))) == "staged"
    assert path(rgb.to(memory_format=torch.channels_last)) == path(torch.empty(2, 2, 24, 40)) == "staged"
    assert path(x, offset=torch.zeros(2, dtype=torch.int32)) == "staged"
    assert path(x[..., 1:]) == path(x[..., ::2]) == path(torch.empty(2, 1, 24, 41)) == "staged"
    assert path(x[:, :, 1:]) == "direct"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", (torch.float32, *HALF), ids=lambda d: str(d).removeprefix("torch."))
def test_vectors_of_pixels_agree_with_the_svd(engine, kernels, cuda_engine, dtype, family):
    # More than 32 patches: a warp's spread over rows, and the last one is not full; leftovers on both sides.
    height, width = 5 * 8 + 3, 9 * 8 + (0 if family == "random" else 16 // dtype.itemsize)
    x = torch.tensor(image(family, height, width, 8))[None, None].to(dtype)
    assert _path(cuda_engine, kernels, x) == "direct"
    # The other one where few patches are more than none (test_spread.py).
    assert _path(cuda_engine, kernels, x, backward=True) in ("direct", "spread")
    for definition in DEFINITIONS:
        expected = oracle(x.double().numpy(), definition)
        largest = np.abs(expected.gradient).max()
        scale = 2.0 ** -np.floor(np.log2(largest)) if largest > 0 else 1.0
        pred = x.clone().requires_grad_()
        value = q_metric(pred, definition, reduction="none", engine=engine)
        value.backward(torch.full_like(value, scale * expected.q.size))
        assert_values_agree(value, expected, dtype)
        assert_gradients_agree(pred.grad[:, 0], expected, dtype, scale)


@pytest.mark.parametrize("dtype", (torch.float32, *HALF), ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_direct_and_staged_kernels_give_the_same_bits(
    engine, kernels, cuda_engine, definition, dtype, channels
):
    """So the choice of a path never moves a patch over the threshold, forward or backward."""
    pixels = np.stack([image("camera", 48, 80, 8, seed) for seed in range(4 * channels)])
    pred, target = torch.tensor(pixels).unflatten(0, (4, channels)).to(dtype).chunk(2)
    moved = [torch.nn.functional.pad(x, (3, 5))[..., 3:-5] for x in (pred, target)]
    results = []
    for (a, b), path in (((pred, target), "direct"), (moved, "staged")):
        assert _path(cuda_engine, kernels, a, backward=True, pixel="l1", target=b) == path
        a = a.detach().requires_grad_()
        q = q_metric(a, definition, engine=engine)
        loss = MAEQLoss(0.5, definition=definition, engine=engine)(a, b)
        results.append((q.detach(), loss.detach(), *(torch.autograd.grad(v, a)[0] for v in (q, loss))))
    (q, loss, *gradients), (other_q, other_loss, *others) = results
    assert torch.equal(q, other_q)
    assert torch.equal(gradients[0].contiguous(), others[0].contiguous())
    # The pixel term is summed in another order, and its gradient added with one rounding or with two.
    torch.testing.assert_close(loss, other_loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        gradients[1].contiguous(), others[1].contiguous(), rtol=torch.finfo(dtype).eps, atol=1e-9
    )


@pytest.mark.parametrize("n", [4, 5, 8])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shifted", [False, True])
def test_the_gradient_of_an_absolute_difference_is_its_sign(engine, n, channels, shifted):
    """Whatever keeps it: 0 at zeros of either sign, NaN at NaN. A flat pred has no gradient of Q."""
    cycle = torch.tensor([-0.0, 1.0, 0.0, -1.0, float("nan"), 0.5, float("inf")])
    target = cycle.repeat(2 * channels * 24 * 40 // len(cycle) + 1)[: 2 * channels * 24 * 40]
    target = target.view(2, channels, 24, 40)
    if shifted:
        target = torch.nn.functional.pad(target, (3, 5))[..., 3:-5]
    for zero in (0.0, -0.0):
        pred = torch.full_like(target, zero, requires_grad=True)
        MAEQLoss(0.5, patch_size=n, engine=engine)(pred, target).backward()
        expected = torch.where(target.isnan(), target, torch.sign(0 - target)) / target.numel()
        torch.testing.assert_close(pred.grad, expected, rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.parametrize("n", [6, 17, 32, 64])
def test_large_and_odd_patches_agree_with_the_svd(engine, n):
    for definition in DEFINITIONS:
        for dtype in (torch.float32, torch.float64):
            x = torch.tensor(image("random_on_ramp", n + 1, 2 * n, n)).to(dtype)[None, None].requires_grad_()
            expected = oracle(x.detach().double().numpy(), definition, n)
            value = q_metric(x, definition, n, reduction="none", engine=engine)
            value.sum().backward()
            assert_values_agree(value, expected, dtype)
            assert_gradients_agree(x.grad[:, 0], expected, dtype, 1 / expected.q.size)


@pytest.mark.parametrize("n", [4, 5, 8])
@pytest.mark.parametrize("bad", [(-1, 0), (0, 8), (1 << 30, 0), (0, -(1 << 31)), (7, 7)])
def test_an_impossible_grid_gives_nan_and_reads_nothing_outside(engine, cuda_engine, n, bad):
    x, definition = torch.rand(2, 1, 10, 14), Definition(patch_size=n)
    offset = torch.tensor(bad, dtype=torch.int32)
    fits = all(0 <= d < n and d <= s - n for d, s in zip(bad, x.shape[2:], strict=True))
    value = cuda_engine.q(x, definition, offset, 1.0, "none")
    gradient = cuda_engine.q_grad(torch.ones(2), x, definition, offset, 1.0, "none")
    assert value.isnan().all() == (not fits)
    assert gradient.isnan().all() == (not fits)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(("n", "width"), [(8, 40), (8, 41), (4, 41), (5, 41)])
def test_one_bad_pixel_reaches_the_value_from_whole_patches_only(engine, bad, n, width):
    for definition in DEFINITIONS:
        x = torch.rand(1, 1, 2 * n + 1, width)
        x[0, 0, 1, 2] = bad
        assert q_metric(x, definition, n, engine=engine).isnan()
        x[0, 0, 1, 2] = 0.5
        x[0, 0, -1, 2] = bad
        assert q_metric(x, definition, n, engine=engine).isfinite()


def test_division_by_multiplication_is_exact(kernels):
    numbers = {0, 3, 5, 7, 33, 640, 641} | {2**k + e for k in (0, 1, 5, 16, 30) for e in (-1, 0, 1)}
    numbers |= {2**31 - 1, 2**31 - 2}
    for d in numbers - {0}:
        for a in numbers | {k * d + e for k in (1, 2, 1000, (2**31 - 1) // d) for e in (-1, 0, 1)}:
            if 0 <= a < 2**31:
                assert kernels.divide(a, d) == a // d, (a, d)


@pytest.mark.parametrize("n", [3, 4, 5, 8, 16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_workspace_is_half_a_percent_at_most(engine, kernels, cuda_engine, dtype, n):
    x = torch.empty(1, dtype=dtype).expand(4, 1, 2048, 2048)
    for pixel in (None, "l1"):
        term = (0, 0.0, (0, 0, (0, 0, 0, 0))) if pixel is None else cuda_engine._pixel_term(pixel, 0.1, x)
        settings = cuda_engine._settings(None, 1.0, "mean")
        definition = cuda_engine._definition(Definition(patch_size=n))
        size = kernels.workspace_bytes(x.shape, cuda_engine._tensor(x), term, definition, settings)
        assert size <= 0.005 * x.numel() * x.element_size()

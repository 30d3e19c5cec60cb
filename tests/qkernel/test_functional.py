"""The public functions: shapes, dtypes, reductions, borders, NaN; any shape and any pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qkernel import mae_q_loss, q_loss, q_map, q_metric

from ..conftest import present_engines, takes
from ..oracle import DEFINITIONS, gradient_matrices, oracle
from ..patches import image, photograph, stack
from ..photographs import data_folder
from .agreement import assert_gradients_agree, assert_values_agree


def _batch(images=2, channels=1, height=27, width=35, dtype=torch.float32, device="cpu"):
    return torch.tensor(stack(images, channels, height, width), dtype=dtype, device=device)


def _gradient(function, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


def test_a_picture_a_stack_and_a_batch_have_the_same_q(engine, device):
    batch = _batch(3, 3, device=device)
    each = q_metric(batch, reduction="none", engine=engine)
    assert each.shape == (3,)
    for picture, value in zip(batch, each, strict=True):
        for reduction in ("none", "mean", "sum"):
            got = q_metric(picture, reduction=reduction, engine=engine)
            assert got.shape == () and got == value
    grey = batch[0, :1]
    assert q_metric(grey[0], engine=engine) == q_metric(grey, engine=engine)


def test_reductions_are_over_images(engine, device):
    batch = _batch(5, device=device)
    each = q_metric(batch, reduction="none", engine=engine)
    # One float32 rounding apart at most: the sum is taken in float64.
    torch.testing.assert_close(
        q_metric(batch, engine=engine), each.double().mean().float(), rtol=3e-7, atol=0
    )
    torch.testing.assert_close(
        q_metric(batch, reduction="sum", engine=engine), each.double().sum().float(), rtol=3e-7, atol=0
    )


@pytest.mark.parametrize("reduction, factor", [("mean", 1 / 4), ("sum", 1.0), ("none", 1.0)])
def test_gradient_follows_the_reduction(engine, device, reduction, factor):
    batch = _batch(4, device=device)
    alone = torch.cat([_gradient(lambda x: q_metric(x, engine=engine), batch[i : i + 1]) for i in range(4)])
    got = _gradient(lambda x: q_metric(x, reduction=reduction, engine=engine), batch)
    torch.testing.assert_close(got, alone * factor, rtol=1e-6, atol=1e-9)


def test_every_image_has_its_own_grad_output(engine, device):
    batch = _batch(4, device=device)
    alone = _gradient(lambda x: q_metric(x, reduction="none", engine=engine), batch)
    x = batch.clone().requires_grad_()
    weights = torch.tensor([1.0, 0.0, -2.0, 0.5], device=device)
    q_metric(x, reduction="none", engine=engine).backward(weights)
    torch.testing.assert_close(x.grad, alone * weights.view(-1, 1, 1, 1), rtol=1e-6, atol=1e-9)


def test_an_expanded_grad_output_is_taken(engine, device):
    x = _batch(3, device=device).requires_grad_()
    values = q_metric(x, reduction="none", engine=engine)
    (got,) = torch.autograd.grad(values, x, torch.tensor(2.0, device=device).expand(3), retain_graph=True)
    (want,) = torch.autograd.grad(values, x, torch.full((3,), 2.0, device=device))
    assert torch.equal(got, want)


def test_eight_bit_pictures_have_data_range_255(engine, device):
    picture = torch.tensor(photograph("coffee", rgb=True)[:100, :90].copy()).permute(2, 0, 1).to(device)
    got = q_metric(picture, engine=engine)
    assert got.dtype == torch.float32
    # Luma is rounded to float32 once before its gradients are taken.
    torch.testing.assert_close(got, q_metric(picture.float() / 255, engine=engine), rtol=1e-5, atol=0)
    assert q_metric(picture, data_range=255, engine=engine) == got


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_values_are_float32_and_float64_for_float64(engine, device, dtype):
    if not takes(engine, dtype):
        pytest.skip(f"{engine} takes no {dtype}")
    x = _batch(dtype=dtype, device=device)
    want = torch.float64 if dtype == torch.float64 else torch.float32
    assert q_metric(x, engine=engine).dtype == q_loss(x, engine=engine).dtype == want
    assert _gradient(lambda x: q_loss(x, engine=engine), x).dtype == dtype


def test_the_loss_is_minus_weight_times_q(engine, device):
    x = _batch(device=device)
    for weight in (1.0, 0.02, 0.0, -3):
        torch.testing.assert_close(
            q_loss(x, weight, engine=engine), -weight * q_metric(x, engine=engine), rtol=3e-7, atol=0
        )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_an_empty_batch_is_no_error(engine, device, reduction):
    x = torch.empty(0, 3, 16, 16, device=device, requires_grad=True)
    value = q_metric(x, reduction=reduction, engine=engine)
    want = torch.empty(0, device=device)
    want = want if reduction == "none" else getattr(want, reduction)()
    torch.testing.assert_close(value.detach(), want, equal_nan=True)
    value.sum().backward()
    assert x.grad.shape == x.shape
    loss, terms = mae_q_loss(x, x.detach(), return_terms=True, reduction=reduction, engine=engine)
    assert loss.shape == value.shape == terms["pixel"].shape == terms["q"].shape


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_pixels_outside_the_whole_patches_do_not_matter_and_get_no_gradient(engine, device, definition):
    x = _batch(1, 1, 27, 37, device=device)
    other = x.clone()
    other[..., 24:, :] = math.nan
    other[..., :, 32:] = math.inf
    got = q_metric(other, definition, engine=engine)
    assert got == q_metric(x, definition, engine=engine)
    gradient = _gradient(lambda x: q_metric(x, definition, engine=engine), other)
    assert (gradient[..., 24:, :] == 0).all() and (gradient[..., :, 32:] == 0).all()
    assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_pixel_that_is_no_number_makes_its_image_nan(engine, device, definition, bad):
    """In every position of a patch, on photographs and on flat patches, which the gate would drop."""
    for n, background in ((8, "random_on_ramp"), (8, "constant"), (5, "camera"), (3, "constant")):
        if not takes(engine, patch_size=n):
            continue
        batch = torch.tensor(image(background, 2 * n, 9 * n, n), dtype=torch.float32, device=device)
        batch = batch.repeat(n * n + 1, 1, 1, 1)
        clean = q_metric(batch[-1:], definition, n, engine=engine)
        for k in range(n * n):
            batch[k, 0, n + k // n, (k % 9) * n + k % n] = bad
        values = q_metric(batch, definition, n, reduction="none", engine=engine)
        # In a 3 x 3 patch Sobel's gradients do not look at some pixels.
        seen = _seen(definition, n).to(device)
        assert values[:-1][seen].isnan().all()
        assert values[-1] == clean[()]
        assert q_metric(batch, definition, n, engine=engine).isnan()


def _seen(definition, n):
    matrices = gradient_matrices("sobel" if definition == "mmsp2024" else "central", n)
    return torch.tensor(sum(np.abs(m).sum(0) for m in matrices) > 0)


def test_nan_stays_in_its_image_and_its_patch(engine, device):
    batch = _batch(3, device=device)
    batch[1, 0, 3, 3] = math.nan
    values = q_metric(batch, reduction="none", engine=engine)
    assert values.isnan().tolist() == [False, True, False]
    gradient = _gradient(lambda x: q_metric(x, reduction="none", engine=engine), batch)
    assert gradient[[0, 2]].isfinite().all()
    assert gradient[1, 0, :8, :8].isnan().any()
    assert gradient[1, 0, 8:].isfinite().all() and gradient[1, 0, :, 8:].isfinite().all()


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_constant_patches_have_q_0_and_gradient_0(engine, device, definition):
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        if not takes(engine, dtype):
            continue
        for level in (0.0, 1.0, 0.3, -5.0):
            x = torch.full((2, 1, 17, 41), level, dtype=dtype, device=device)
            assert q_metric(x, definition, engine=engine) == 0
            assert (_gradient(lambda x: q_metric(x, definition, engine=engine), x) == 0).all()


def test_the_denominator_counts_all_whole_patches(engine, device):
    edge = torch.zeros(1, 1, 8, 8, device=device)
    edge[..., 4:] = 1
    one = q_metric(edge, engine=engine)
    padded = torch.zeros(1, 1, 8 * 3 + 7, 8 * 4 + 5, device=device)
    padded[..., :8, :8] = edge
    torch.testing.assert_close(q_metric(padded, engine=engine), one / 12)
    # With the grid one pixel lower, the first row of patches loses a row of pixels and the last still fits.
    assert q_metric(padded, offset=(1, 0), engine=engine).item() == pytest.approx(
        oracle(padded.cpu().numpy(), offset=(1, 0)).value[0], rel=1e-5
    )


@settings(deadline=None, max_examples=40)
@given(
    definition=st.sampled_from(DEFINITIONS),
    extra=st.tuples(st.integers(0, 20), st.integers(0, 60)),
    images=st.integers(1, 3),
    offset=st.tuples(st.integers(0, 16), st.integers(0, 16)),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_any_shape_agrees_with_the_svd(definition, extra, images, offset, seed, data):
    engine, device = data.draw(st.sampled_from(present_engines()))
    n = data.draw(st.sampled_from([n for n in range(3, 18) if takes(engine, patch_size=n)]))
    height, width = n + extra[0], n + extra[1]
    offset = (min(offset[0], n - 1, extra[0]), min(offset[1], n - 1, extra[1]))
    pixels = np.stack([image("random_on_ramp", height, width, n, seed + i) for i in range(images)])
    x = torch.tensor(pixels[:, None], dtype=torch.float32, device=device, requires_grad=True)
    expected = oracle(pixels.astype(np.float32), definition, n, offset=offset)
    if expected.near_gate.any():
        return
    values = q_metric(x, definition, n, reduction="none", offset=offset, engine=engine)
    values.sum().backward()
    assert_values_agree(values, expected, torch.float32)
    assert_gradients_agree(x.grad[:, 0], expected, torch.float32, 1 / expected.q[0].size, offset)


@settings(deadline=None, max_examples=60)
@given(
    definition=st.sampled_from(DEFINITIONS),
    pixels=st.lists(st.floats(-16, 16, width=16), min_size=25, max_size=25),
    data=st.data(),
)
def test_any_finite_pixels_give_finite_values_and_gradients(definition, pixels, data):
    engine, device = data.draw(st.sampled_from(present_engines()))
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    dtype = data.draw(st.sampled_from([dtype for dtype in dtypes if takes(engine, dtype)]))
    n = data.draw(st.sampled_from([n for n in (3, 4, 5) if takes(engine, dtype, n)]))
    x = torch.tensor(pixels, dtype=torch.float64).reshape(1, 1, 5, 5)
    x = x.to(device, dtype).requires_grad_()
    value = q_metric(x, definition, n, engine=engine)
    assert value.isfinite() and value >= 0
    value.backward()
    assert x.grad.isfinite().all()


def test_published_mean_q_of_the_kodak_crops(engine, device):
    crops = []
    for path in sorted(data_folder("kodak").glob("kodim*.png")):
        with Image.open(path) as picture:
            luma = np.asarray(picture.convert("L"))
        top, left = (luma.shape[0] - 128) // 2, (luma.shape[1] - 128) // 2
        crops.append(luma[top : top + 128, left : left + 128])
    assert len(crops) == 24
    crops = torch.tensor(np.stack(crops)[:, None], device=device)
    for definition, published in (("zhu2010", 0.127), ("pythonq", 0.144), ("mmsp2024", 0.110)):
        assert round(q_metric(crops, definition, engine=engine).item(), 3) == published


def test_q_map_holds_what_q_is_the_mean_of(device, engine):
    x = _batch(2, 3, 30, 43, device=device)
    for offset in ((0, 0), (3, 5), (7, 7)):
        patches = q_map(x, offset=offset)
        expected = oracle(x.cpu().numpy(), offset=offset)
        for name, value in zip(patches._fields, patches, strict=True):
            assert value.shape == expected.q.shape, name
        values = q_metric(x, reduction="none", offset=offset, engine=engine)
        torch.testing.assert_close(patches.q.mean((1, 2)), values, rtol=1e-5, atol=0)
        np.testing.assert_allclose(patches.strength.cpu(), expected.s1, rtol=1e-5)
        np.testing.assert_allclose(patches.coherence.cpu(), expected.coherence, atol=1e-5)


def test_q_map_of_a_picture_has_no_batch_dimension():
    picture = torch.tensor(photograph("camera")[:40, :64].copy())
    assert all(value.shape == (5, 8) for value in q_map(picture))
    assert all(value.shape == (1, 5, 8) for value in q_map(picture[None, None]))
    assert q_map(picture, offset="random").q.shape in {(r, c) for r in (4, 5) for c in (7, 8)}
    torch.testing.assert_close(q_map(picture).q.mean(), q_metric(picture))

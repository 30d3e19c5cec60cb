"""Every engine agrees with the float64 SVD, within the bounds of metric.md, on every patch family."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from qkernel import q_metric

from ..conftest import takes
from ..oracle import DEFINITIONS, LUMA, gradient_matrices, oracle, paste
from ..patches import FAMILIES, STRAIGHT, image, photograph
from .agreement import assert_gradients_agree, assert_values_agree

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
PATCH_SIZES = (3, 4, 5, 8, 16)


@functools.cache
def _images(family: str, n: int, dtype: torch.dtype) -> torch.Tensor:
    # 3 x 9 patches, no whole number of vector registers, and a few pixels left over.
    height, width = 3 * n + 2, 9 * n + n - 1
    images = [image(family, height, width, n, seed) for seed in range(2)]
    return torch.tensor(np.stack(images)[:, None]).to(dtype)


@functools.cache
def _oracle(definition: str, family: str, n: int, dtype: torch.dtype):
    return oracle(_images(family, n, dtype).double().numpy(), definition, n)


def _value_and_gradient(x: torch.Tensor, grad_output, **settings):
    x = x.detach().clone().requires_grad_()
    values = q_metric(x, reduction="none", **settings)
    values.backward(torch.as_tensor(grad_output, dtype=values.dtype, device=x.device).expand_as(values))
    return values.detach(), x.grad


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_value_and_gradient_agree_with_the_svd(engine, device, definition, dtype, family):
    if not takes(engine, dtype):
        pytest.skip(f"{engine} takes no {dtype}")
    for n in PATCH_SIZES:
        if not takes(engine, dtype, n):
            continue
        x = _images(family, n, dtype)
        expected = _oracle(definition, family, n, dtype)
        # A power of two brings the gradient near 1: float16 ends at 65504, and is coarse below 6e-5.
        largest = np.abs(expected.gradient).max()
        scale = 2.0 ** -np.floor(np.log2(largest)) if largest > 0 else 1.0
        patches = expected.q[0].size
        value, gradient = _value_and_gradient(
            x.to(device), scale * patches, definition=definition, patch_size=n, engine=engine
        )
        assert gradient.dtype == dtype
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert_values_agree(value, expected, dtype)
        assert_gradients_agree(gradient[:, 0], expected, dtype, scale)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_single_patches_agree_with_the_svd(engine, device, definition):
    """Patch by patch: in the mean over an image a wrong patch could hide."""
    for family in ("random_on_ramp", "random_on_weak_ramp", "ramp_at_any_angle", "camera"):
        for n in (3, 8, 16, 7):
            if not takes(engine, patch_size=n):
                continue
            x = torch.tensor(
                np.stack([image(family, n, n, n, seed) for seed in range(60)])[:, None], dtype=torch.float32
            )
            expected = oracle(x.double().numpy(), definition, n)
            value, gradient = _value_and_gradient(
                x.to(device), 1.0, definition=definition, patch_size=n, engine=engine
            )
            assert_values_agree(value, expected, torch.float32)
            assert_gradients_agree(gradient[:, 0], expected, torch.float32)


@pytest.mark.parametrize("definition", ["zhu2010", "pythonq"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_straight_edges_get_the_gradient_without_s2(engine, device, definition, dtype):
    """Exactly rank 1: the s2 part, as large as the rest and of no direction, is 0 and not rounding noise."""
    if not takes(engine, dtype):
        pytest.skip(f"{engine} takes no {dtype}")
    for family in STRAIGHT:
        for n in PATCH_SIZES:
            if not takes(engine, dtype, n):
                continue
            x = _images(family, n, dtype)
            expected = _oracle(definition, family, n, dtype)
            assert (expected.s2 <= 1e-15 * expected.s1).all()
            patches = expected.q[0].size
            _, gradient = _value_and_gradient(
                x.to(device), patches, definition=definition, patch_size=n, engine=engine
            )
            without_s2 = paste(expected.gradient_1, *x.shape[2:])
            error = np.abs(gradient[:, 0].cpu().double().numpy() - without_s2).max()
            # A few roundings in the dtype; s2's part would be of the order of 1.
            rounding = max(torch.finfo(dtype).eps, 1e-13)
            assert error <= 4 * rounding * np.abs(without_s2).max()


@pytest.mark.parametrize("eps", [1e-4, 1e-3, 0.1])
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_smoothing_agrees_with_the_svd(engine, device, definition, eps):
    for family in ("random_on_weak_ramp", "ramp_at_any_angle", "vertical_step", "camera", "constant"):
        for n in (5, 8):
            for dtype in (torch.float32, torch.float64):
                if not takes(engine, dtype, n):
                    continue
                x = _images(family, n, dtype)
                expected = oracle(x.double().numpy(), definition, n, eps=eps)
                value, gradient = _value_and_gradient(
                    x.to(device), 54.0, definition=definition, patch_size=n, engine=engine, eps=eps
                )
                assert_values_agree(value, expected, dtype)
                assert_gradients_agree(gradient[:, 0], expected, dtype, 54.0 / expected.q[0].size)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_any_grid_offset_agrees_with_the_svd(engine, device, definition, dtype):
    if not takes(engine, dtype):
        pytest.skip(f"{engine} takes no {dtype}")
    n = 8
    for offset in ((1, 0), (0, 7), (3, 5), (7, 7)):
        # Whatever (dy, dx), a whole row or column of patches drops out at one size and not at the other.
        for height, width in ((4 * n, 5 * n), (5 * n - 1, 4 * n - 1)):
            x = torch.tensor(image("camera", height, width, n)).to(dtype)[None, None]
            expected = oracle(x.double().numpy(), definition, n, offset=offset)
            value, gradient = _value_and_gradient(
                x.to(device), expected.q.size, definition=definition, offset=offset, engine=engine
            )
            assert_values_agree(value, expected, dtype)
            assert_gradients_agree(gradient[:, 0], expected, dtype, offset=offset)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_rgb_is_measured_on_its_luma(engine, device, definition, dtype):
    if not takes(engine, dtype):
        pytest.skip(f"{engine} takes no {dtype}")
    # Strong gradients: luma rounded in float32 is off by 6e-8 of the brightness, little beside them.
    n = 8
    channels = [image("random_on_ramp", 3 * n + 1, 9 * n + 3, n, seed) for seed in range(3)]
    x = (torch.tensor(np.stack(channels))[None] / 4).to(dtype)
    expected = oracle(x.double().numpy(), definition, n)
    value, gradient = _value_and_gradient(
        x.to(device), expected.q.size, definition=definition, patch_size=n, engine=engine
    )
    assert_values_agree(value, expected, dtype)
    for channel, share in enumerate(LUMA):
        assert_gradients_agree(gradient[:, channel], expected, dtype, share)


@pytest.mark.parametrize("data_range", [255.0, 1e-3, 65535.0])
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_any_data_range_agrees_with_the_svd(engine, device, definition, data_range):
    n = 8
    for family in ("camera", "random_on_weak_ramp", *STRAIGHT):
        # Whole numbers: straight edges are exactly straight before the division by data_range.
        # The base is bright, so that rounding after the division would bend them.
        pixels = 128 + np.round(image(family, 6 * n, 9 * n, n) * 127)
        pixels *= max(1, data_range // 255)
        x = torch.tensor(pixels, dtype=torch.float32)[None, None]
        expected = oracle(x.double().numpy(), definition, n, data_range=data_range)
        scale = data_range
        value, gradient = _value_and_gradient(
            x.to(device), scale * expected.q.size, definition=definition, data_range=data_range, engine=engine
        )
        assert_values_agree(value, expected, torch.float32)
        assert_gradients_agree(gradient[:, 0], expected, torch.float32, scale)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("family", ["astronaut", "coffee"])
def test_an_eight_bit_picture_agrees_with_the_svd(engine, device, definition, family):
    pixels = photograph(family)[40:173, 55:207]
    expected = oracle(pixels[None], definition, data_range=255.0)
    value = q_metric(torch.tensor(pixels, device=device), definition, engine=engine)
    assert_values_agree(value[None], expected, torch.float32)


@pytest.mark.parametrize("definition", ["zhu2010", "pythonq"])
def test_gradient_of_a_patch_is_bounded(definition, engine, device):
    """|dQ/dG| <= sqrt(5) in any patch, so |dQ/dx| <= sqrt(5) times the norm of the gradient operator.

    A gradient that divides by a lost s2 is far outside.
    """
    n = 8
    bound = np.sqrt(5) * np.linalg.norm(np.concatenate(gradient_matrices("central", n)), 2)
    rng = np.random.default_rng(0)
    for noise in (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-3):
        for family in (*STRAIGHT, "ramp_at_any_angle"):
            pixels = image(family, 9 * n, 9 * n, n) + noise * rng.standard_normal((9 * n, 9 * n))
            x = torch.tensor(pixels, dtype=torch.float32)[None, None]
            expected = oracle(x.double().numpy(), definition, n)
            assert (expected.norm <= np.sqrt(5) * (1 + 1e-9)).all()
            _, gradient = _value_and_gradient(
                x.to(device), expected.q.size, definition=definition, engine=engine
            )
            patches = gradient.cpu().double().reshape(9, n, 9, n).transpose(1, 2).flatten(2)
            assert patches.norm(dim=-1).max() <= bound * (1 + 1e-4)


def test_contrast_whose_square_is_hardly_a_number_keeps_its_digits(engine, device):
    """Squares below the smallest normal float32: nothing overflows, and nothing is lost."""
    ramp = torch.arange(8.0).repeat(8, 2)[None, None]
    noise = torch.randn(1, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    for contrast in (1e-15, 1e-17, 1e-18, 2e-19):
        x = contrast * ramp + 1e-20 * noise
        value, gradient = _value_and_gradient(x.to(device), 1.0, engine=engine)
        expected, exact = _value_and_gradient(x.double(), 1.0, engine="eager")
        torch.testing.assert_close(value.cpu().double(), expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(
            gradient.cpu().double(), exact, rtol=0, atol=1e-4 * exact.abs().max().item()
        )
    for contrast in (1e-19, 2e-20, 5e-21, 1e-21, 1e-22, 1e-30):
        for eps in (0.0, 1e-3):
            value, gradient = _value_and_gradient((contrast * ramp).to(device), 1.0, engine=engine, eps=eps)
            assert value.isfinite().all() and gradient.isfinite().all(), (contrast, eps)


def test_at_the_ends_of_the_range_a_loss_is_finite_or_openly_not(engine, device):
    noise = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    ramp = torch.arange(16.0).repeat(16, 1)[None, None]
    for x, settings in (
        # Squares that are hardly numbers, in data ranges in which they would be.
        (1e-20 * noise, {"data_range": 1e-3}),
        (1e-20 * noise, {"data_range": 1e-6}),
        # A root smoothed so much that Q vanishes.
        (ramp / 16, {"definition": "mmsp2024", "eps": 1e19}),
        (ramp / 16e4, {"definition": "mmsp2024", "eps": 1e18}),
    ):
        value, gradient = _value_and_gradient(x.to(device), 1.0, engine=engine, **settings)
        assert value.isfinite().all() and gradient.isfinite().all(), settings
    # And squares that overflow: not a Q of 0.
    value, _ = _value_and_gradient((1e14 * ramp).to(device), 1.0, engine=engine, data_range=1e-6)
    assert not value.isfinite().any()

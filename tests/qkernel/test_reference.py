"""The reference in plain torch: each quantity of a patch, whole patches, finite derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qkernel import Definition, reference

from ..oracle import DEFINITIONS, gradient_matrices, oracle
from ..patches import FAMILIES, image


def _image(family, height, width, n, dtype=torch.float64):
    return torch.tensor(image(family, height, width, n), dtype=dtype)[None, None]


@pytest.mark.parametrize("kind", ["central", "sobel"])
@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_gradients_are_those_of_the_definition(kind, n):
    patches = torch.rand(2, 3, n, 4, n, dtype=torch.float64)
    flat = patches.transpose(2, 3).reshape(2, 3, 4, n * n).numpy()
    for got, matrix in zip(reference.gradients(patches, kind), gradient_matrices(kind, n), strict=True):
        got = got.transpose(2, 3).reshape(2, 3, 4, n * n).numpy()
        np.testing.assert_allclose(got, flat @ matrix.T, rtol=0, atol=1e-15)


@pytest.mark.parametrize("n", [3, 8])
def test_central_gradients_are_those_of_torch(n):
    patch = torch.rand(1, 1, n, 1, n)
    gx, gy = reference.gradients(patch, "central")
    want_y, want_x = torch.gradient(patch[0, 0, :, 0])
    torch.testing.assert_close(gx[0, 0, :, 0], want_x)
    torch.testing.assert_close(gy[0, 0, :, 0], want_y)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_patch_agrees_with_the_svd(definition, family):
    x = _image(family, 42, 50, 8)
    expected = oracle(x.numpy(), definition)
    got, whole = reference.patch_quantities(x, Definition(definition))
    assert whole is None
    # 1e-7 of s1 is what sqrt leaves of a float64 l2 at rank 1; q is compared far tighter in test_accuracy.
    sure = ~expected.near_gate
    np.testing.assert_allclose(got.q.numpy()[sure], expected.q[sure], rtol=1e-11, atol=0)
    np.testing.assert_allclose(got.strength.numpy(), expected.s1, rtol=1e-12, atol=0)
    np.testing.assert_allclose(got.coherence.numpy(), expected.coherence, rtol=0, atol=1e-7)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_orientation_is_the_first_singular_vector(definition):
    x = _image("random_on_ramp", 40, 56, 8)
    expected = oracle(x.numpy(), definition)
    angle = reference.patch_quantities(x, Definition(definition))[0].orientation.numpy()
    along = np.cos(angle) * expected.direction[..., 0] + np.sin(angle) * expected.direction[..., 1]
    np.testing.assert_allclose(np.abs(along), 1, atol=1e-12)
    assert (angle > -np.pi / 2).all() and (angle <= np.pi / 2).all()


@pytest.mark.parametrize(
    "step, angle", [((1, 0), 0), ((0, 1), np.pi / 2), ((1, 1), np.pi / 4), ((1, -1), -np.pi / 4)]
)
def test_orientation_turns_from_right_to_down(step, angle):
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    ramp = ((step[0] * x + step[1] * y) / 16)[None, None]
    got = reference.patch_quantities(ramp, Definition())[0].orientation
    torch.testing.assert_close(got, torch.full((1, 1, 1), angle, dtype=torch.float32))


def test_refinement_is_what_keeps_the_digits_of_a_small_s2():
    x = _image("near_rank_1_rougher", 64, 64, 8, torch.float32)
    want = oracle(x.numpy(), "zhu2010").q
    refined = reference.patch_quantities(x, Definition())[0].q.numpy()
    plain = reference.patch_quantities(x, Definition(), refine=False)[0].q.numpy()
    np.testing.assert_allclose(refined, want, rtol=1e-6)
    assert np.abs(plain / want - 1).max() > 1e-5


@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (0, 4), (4, 4)])
@pytest.mark.parametrize("size", [(20, 25), (24, 29), (9, 11)])
def test_an_offset_takes_the_patches_that_remain_whole(offset, size):
    n = 5
    x = _image("random_on_ramp", *size, n)
    got, whole = reference.patch_quantities(
        x, Definition(patch_size=n), torch.tensor(offset, dtype=torch.int32)
    )
    expected = oracle(x.numpy(), n=n, offset=offset)
    rows, columns = expected.q.shape[1:]
    assert whole.sum() == rows * columns and whole[:rows, :columns].all()
    np.testing.assert_allclose(got.q[:, :rows, :columns], expected.q, rtol=1e-11)
    value = reference.q_per_image(x, Definition(patch_size=n), torch.tensor(offset))
    np.testing.assert_allclose(value, expected.value, rtol=1e-11)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_first_and_second_derivatives_are_finite_on_every_family(definition, family):
    for dtype in (torch.float32, torch.float64):
        x = _image(family, 18, 26, 8, dtype).requires_grad_()
        value = reference.q_per_image(x, Definition(definition)).sum()
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.sum(), x)
        for tensor in (value, gradient, second):
            assert tensor.isfinite().all()


def test_half_precision_is_computed_in_float32():
    for dtype in (torch.bfloat16, torch.float16):
        x = _image("random_on_ramp", 24, 24, 8, dtype)
        got = reference.q_per_image(x, Definition())
        assert got.dtype == torch.float32
        assert torch.equal(got, reference.q_per_image(x.float(), Definition()))


def test_pixel_terms_are_the_textbook_ones():
    pred, target = torch.rand(2, 3, 3, 4, 5, dtype=torch.float64)
    difference = (pred - target).numpy()
    for name, per_pixel in (
        ("l1", np.abs(difference)),
        ("mse", difference**2),
        ("charbonnier", np.sqrt(difference**2 + 0.05**2)),
    ):
        got = reference.pixel_per_image(pred, target, name, 0.05)
        np.testing.assert_allclose(got, per_pixel.mean((1, 2, 3)), rtol=1e-14)


def test_luma_is_bt601():
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    want = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    torch.testing.assert_close(reference.luma(x), want, rtol=1e-15, atol=1e-15)
    assert torch.equal(reference.luma(x[:, :1]), x[:, 0])

"""The blur as an operator, against SciPy's convolution and the definition of an adjoint."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from model.classical.blur import KernelBlur, adjoint, rotated
from model.data.blur import box_blur

SCIPY = {"circular": "wrap", "reflect": "mirror"}


@pytest.mark.parametrize("border", ["circular", "reflect"])
def test_it_is_a_convolution(camera, lopsided, border):
    for kernel in (lopsided, torch.full((5, 5), 0.04, dtype=torch.float64)):
        seen = KernelBlur(kernel, border)(camera)
        for one, other in zip(camera[:, 0].numpy(), seen[:, 0].numpy(), strict=True):
            assert np.allclose(convolve(one, kernel.numpy(), mode=SCIPY[border]), other, atol=1e-14)


def test_the_mirrored_box_is_the_8_bit_blur_before_rounding(camera):
    """Half-way cases do not exist for 25 pixels, so rounding must give the same whole numbers."""
    eight = (camera * 255).round().to(torch.uint8)
    unrounded = KernelBlur.box(5, "reflect")(camera)
    assert torch.equal((unrounded * 255).round().to(torch.uint8), box_blur(eight, 5))


@pytest.mark.parametrize("border", ["circular", "reflect"])
def test_adjoint_is_the_adjoint(camera, lopsided, border):
    other = torch.rand(camera.shape, dtype=torch.float64)
    for kernel in (lopsided, torch.full((3, 7), 1 / 21, dtype=torch.float64), torch.ones(1, 1)):
        blur = KernelBlur(kernel, border)
        left, right = (blur(camera) * other).sum(), (camera * blur.adjoint(other)).sum()
        assert float(left) == pytest.approx(float(right), rel=1e-12)


def test_turning_twice_gives_the_adjoint_of_a_circular_blur(camera, lopsided):
    blur = KernelBlur(lopsided)
    assert torch.allclose(adjoint(blur, camera), blur.adjoint(camera), atol=1e-14)
    assert not torch.allclose(blur(camera), blur.adjoint(camera), atol=1e-3)
    assert torch.equal(rotated(rotated(camera)), camera)


@pytest.mark.parametrize("size", [(48, 40), (47, 39), (4, 3)])
def test_transfer_function_is_what_the_circular_blur_multiplies_by(camera, lopsided, size):
    """Also where the kernel is as large as the picture and wraps round it."""
    blur, picture = KernelBlur(lopsided), camera[..., : size[0], : size[1]]
    spectrum = torch.fft.rfft2(picture) * blur.transfer(*size, picture.device)
    assert torch.allclose(torch.fft.irfft2(spectrum, s=size), blur(picture), atol=1e-14)


def test_clipping_is_only_done_where_asked(camera):
    blur = KernelBlur.box(3, clip=True)
    assert float(blur(3 * camera).max()) == 1
    assert torch.equal(blur.unclipped()(3 * camera), KernelBlur.box(3)(3 * camera))


@pytest.mark.parametrize("border", ["circular", "reflect"])
def test_no_picture_gains_more_than_the_bound(camera, border):
    blur, picture = KernelBlur.box(5, border), camera[:1, :, :12, :10]
    columns = torch.eye(120, dtype=torch.float64).reshape(120, 1, 12, 10)
    exact = float(torch.linalg.matrix_norm(blur(columns).reshape(120, 120), 2))
    bound = blur.largest_gain(picture)
    assert exact <= bound * (1 + 1e-12) < 1.25
    assert (bound == pytest.approx(1, rel=1e-12)) == (border == "circular")


def test_impossible_blurs_are_refused(camera):
    with pytest.raises(ValueError, match=r"odd sides, got \(4, 5\)"):
        KernelBlur(torch.ones(4, 5))
    with pytest.raises(ValueError, match="needs a larger picture"):
        KernelBlur.box(9, "reflect")(camera[..., :4, :])

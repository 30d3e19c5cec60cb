"""aL, mLM and mRL: published results pixel for pixel, closed forms, and other computations of the same."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import convolve

from model.classical import CLASSICAL
from model.classical.al import ApproximateLandweber
from model.classical.blur import KernelBlur
from model.classical.mlm import ModifiedLevenbergMarquardt, noise_level
from model.classical.mrl import ModifiedRichardsonLucy
from model.evaluation.metrics import psnr, quantised
from tests.photographs import data_folder

BLACK_BOX = ("al", "mlm", "mrl")


@pytest.fixture(scope="module")
def kodim19() -> np.ndarray:
    return np.array(Image.open(data_folder("mmsp2024") / "MMSP_Comparisons" / "kodim19_original.png"))


@pytest.mark.parametrize(
    ("name", "iterations", "decibels"), [("al", 250, 31.284), ("mrl", 250, 31.568), ("mlm", 100, 40.911)]
)
def test_published_results_are_met_pixel_for_pixel(kodim19, name, iterations, decibels):
    blur = KernelBlur.box(5, "circular", clip=True)
    blurred = blur(torch.from_numpy(kodim19 / 255)[None, None])
    restored = quantised(CLASSICAL[name](iterations)(blurred, blur), "truncate")
    theirs = data_folder("mmsp2024") / "MMSP_Comparisons" / f"kodim19_{name}.png"
    assert np.array_equal(restored, np.array(Image.open(theirs)))
    assert psnr(kodim19, restored) == pytest.approx(decibels, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "iterations", "decibels"),
    [("al", 10, 25.968), ("al", 50, 28.674), ("mrl", 10, 26.304), ("mlm", 1, 31.202), ("mlm", 10, 36.055)],
)
def test_decibels_on_the_way_there(kodim19, name, iterations, decibels):
    blur = KernelBlur.box(5, "circular", clip=True)
    blurred = blur(torch.from_numpy(kodim19 / 255)[None, None])
    restored = quantised(CLASSICAL[name](iterations)(blurred, blur), "truncate")
    assert psnr(kodim19, restored) == pytest.approx(decibels, abs=1e-3)


def test_mlm_diverges_on_what_the_networks_are_given(kodim19):
    """The 8-bit, mirrored picture of the same crop: below the blurred one's 24.5 dB."""
    blur = KernelBlur.box(5, "reflect")
    sharp = torch.from_numpy(kodim19 / 255)[None, None]
    blurred = (blur(sharp) * 255).round() / 255
    restored = CLASSICAL["mlm"]()(blurred, blur)
    # Rounding moves it by 0.002 dB: what diverges blows that up, too.
    assert psnr(kodim19, quantised(restored, "truncate")) == pytest.approx(23.69, abs=0.01)


@pytest.mark.parametrize("name", BLACK_BOX)
def test_an_unblurred_picture_is_a_fixed_point(camera, name):
    nothing = KernelBlur(torch.ones(1, 1))
    assert torch.allclose(CLASSICAL[name](iterations=5)(camera, nothing), camera, atol=1e-13)


@pytest.mark.parametrize("name", BLACK_BOX)
def test_the_sharp_picture_is_approached_and_the_residual_falls(camera, name):
    blur = KernelBlur.box(3)
    blurred = blur(camera)
    errors, residuals = [], []
    for iterations in (0, 1, 3, 10, 30):
        restored = CLASSICAL[name](iterations)(blurred, blur)
        errors.append(float((restored - camera).square().mean()))
        residuals.append(float((blur(restored) - blurred).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert residuals == sorted(residuals, reverse=True)
    assert errors[-1] < errors[0] / 2


@pytest.mark.parametrize("name", [*BLACK_BOX, "red-fp", "red-sdm", "wiener", "richardson-lucy", "median"])
def test_pictures_of_a_batch_do_not_influence_each_other(camera, name):
    blur = KernelBlur.box(3)
    blurred = blur(camera)
    method = CLASSICAL[name]() if name in ("wiener", "median") else CLASSICAL[name](iterations=3)
    together = method(blurred, blur)
    alone = torch.cat([method(picture[None], blur) for picture in blurred])
    assert torch.allclose(together, alone, atol=1e-6 if name.startswith("red") else 1e-12)
    assert (together.dtype, together.shape) == (blurred.dtype, blurred.shape)


def test_al_on_a_circular_blur_has_its_closed_form(camera):
    blur, steps = KernelBlur.box(3), 20
    h = blur.transfer(48, 40, camera.device).real
    spectrum = torch.fft.rfft2(camera) * (1 - (1 - h**2) ** steps * (1 - h))
    restored = ApproximateLandweber(steps)(blur(camera), blur)
    assert torch.allclose(restored, torch.fft.irfft2(spectrum, s=(48, 40)), atol=1e-12)


def test_mlm_on_a_circular_blur_has_its_closed_form(camera):
    blur, steps = KernelBlur.box(3), 7
    blurred = blur(camera)
    h = blur.transfer(48, 40, camera.device).real
    a = 100 * noise_level(blurred) ** 2 / blurred.var(dim=(-2, -1), keepdim=True, correction=0)
    spectrum = torch.fft.rfft2(camera) * (1 - (a / (h**2 + a)) ** steps * (1 - h))
    restored = ModifiedLevenbergMarquardt(steps)(blurred, blur)
    assert torch.allclose(restored, torch.fft.irfft2(spectrum, s=(48, 40)), atol=1e-8)


def test_al_is_landweber_with_the_matrix_of_the_blur(camera, lopsided):
    picture = camera[:1, :, :12, :10]
    blur = KernelBlur(lopsided)
    columns = torch.eye(120, dtype=torch.float64).reshape(120, 1, 12, 10)
    matrix = blur(columns).reshape(120, 120).T.numpy()
    y = matrix @ picture.numpy().ravel()
    x = y.copy()
    for _ in range(9):
        x = x + matrix.T @ (y - matrix @ x)
    restored = ApproximateLandweber(9)(torch.from_numpy(y).reshape(1, 1, 12, 10), blur)
    assert np.allclose(restored.numpy().ravel(), x, atol=1e-12)


@pytest.mark.parametrize(("border", "mode"), [("circular", "wrap"), ("reflect", "mirror")])
def test_mrl_is_what_scipy_s_convolution_gives(camera, lopsided, border, mode):
    kernel = lopsided.numpy()
    y = convolve(camera[0, 0].numpy(), kernel, mode=mode)
    x = y.copy()

    def blur(image: np.ndarray) -> np.ndarray:
        return convolve(image, kernel, mode=mode)

    def back(image: np.ndarray) -> np.ndarray:
        return np.rot90(blur(np.rot90(image, 2)), 2)

    for _ in range(6):
        x = x / back(blur(x) / y)
        x = x * back(y / blur(x))
    restored = ModifiedRichardsonLucy(6)(torch.from_numpy(y)[None, None], KernelBlur(lopsided, border))
    assert np.allclose(restored[0, 0].numpy(), x, atol=1e-12)


def test_noise_level_is_that_of_the_published_example(kodim19):
    """0.213 grey levels for the noise-free circular blur: the black beyond the border counts as noise."""
    blurred = KernelBlur.box(5)(torch.from_numpy(kodim19 / 255)[None, None])
    level = noise_level(blurred)
    assert 255 * float(level) == pytest.approx(0.213, abs=5e-4)
    assert 100 * float(level) ** 2 / float(blurred.var(correction=0)) == pytest.approx(0.002816, abs=5e-7)


def test_noise_level_of_noise():
    noise = torch.randn(1, 1, 256, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float(noise_level(0.1 * noise)) == pytest.approx(0.1, rel=0.02)


def test_a_constant_picture_stays(camera):
    for value in (0.0, 0.5):
        picture = torch.full_like(camera, value)
        for name in BLACK_BOX:
            assert torch.allclose(
                CLASSICAL[name](iterations=3)(picture, KernelBlur.box(5)), picture, atol=1e-9
            )

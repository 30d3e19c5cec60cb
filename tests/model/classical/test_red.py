"""RED: both algorithms minimise one objective, and each step is the one of its formula."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from model.classical.blur import KernelBlur
from model.classical.denoisers import Median
from model.classical.red import RedDescent, RedFixedPoint
from model.evaluation.metrics import psnr, quantised
from tests.model.classical.conftest import decibels
from tests.photographs import data_folder


@pytest.mark.parametrize("border", ["circular", "reflect"])
def test_both_reach_the_same_picture(camera, border):
    blur = KernelBlur.box(3, border)
    blurred = blur(camera)
    fixed = RedFixedPoint(iterations=60, denoiser="dct")(blurred, blur)
    descended = RedDescent(iterations=300, denoiser="dct")(blurred, blur)
    assert decibels(fixed, camera) > decibels(blurred, camera) + 3
    assert decibels(fixed, camera) == pytest.approx(decibels(descended, camera), abs=0.2)
    assert decibels(fixed, descended) > decibels(fixed, camera) + 6


@pytest.mark.parametrize("denoiser", ["dct", "nlm"])
@pytest.mark.parametrize("method", [RedFixedPoint, RedDescent])
def test_the_objective_falls(camera, method, denoiser):
    blur = KernelBlur.box(3)
    blurred = blur(camera)
    energies = []
    for iterations in (0, 1, 2, 5, 20):
        restored = method(iterations=iterations, denoiser=denoiser)(blurred, blur)
        energies.append(method(iterations=1, denoiser=denoiser).energy(restored, blurred, blur))
    for before, after in pairwise(energies):
        assert (after < before).all()


@pytest.mark.parametrize("border", ["circular", "reflect"])
def test_one_step_is_the_solution_of_its_linear_system(camera, lopsided, border):
    """With the blur as a matrix, and numpy's solver: for both borders, one of which has no closed form."""
    picture, blur = camera[:1, :, :12, :10], KernelBlur(lopsided, border)
    columns = torch.eye(120, dtype=torch.float64).reshape(120, 1, 12, 10)
    matrix = blur(columns).reshape(120, 120).T.numpy()
    blurred = blur(picture)
    y, denoised = blurred.numpy().ravel(), Median()(blurred).numpy().ravel()
    left = matrix.T @ matrix / 2 + 0.02 * np.eye(120)
    expected = np.linalg.solve(left, matrix.T @ y / 2 + 0.02 * denoised).clip(0, 1)
    restored = RedFixedPoint(iterations=1, denoiser="median")(blurred, blur)
    assert np.allclose(restored.numpy().ravel(), expected, atol=1e-4 if border == "reflect" else 1e-12)

    gradient = matrix.T @ (matrix @ y - y) / 2 + 0.02 * (y - denoised)
    # Sums of columns exceed 1 where pixels are seen twice: near a mirrored border.
    gain = (matrix.sum(1).max() * matrix.sum(0).max()) ** 0.5
    assert gain == pytest.approx(1) if border == "circular" else gain > 1.05
    expected = (y - 2 / (gain**2 / 2 + 0.02) * gradient).clip(0, 1)
    restored = RedDescent(iterations=1, denoiser="median")(blurred, blur)
    assert np.allclose(restored.numpy().ravel(), expected, atol=1e-12)


def test_energy_is_that_of_the_matrix(camera):
    blur = KernelBlur.box(3, "reflect")
    blurred = blur(camera)
    x, denoised = 255 * camera, 255 * Median()(camera)
    expected = (255 * (blur(camera) - blurred)).square().sum((1, 2, 3)) / 4
    expected = expected + 0.01 * (x * (x - denoised)).sum((1, 2, 3))
    energy = RedFixedPoint(denoiser="median").energy(camera, blurred, blur)
    assert torch.allclose(energy, expected, rtol=1e-9)


def test_the_published_crop_is_resembled():
    """The paper's denoiser is not to be had, so its picture is not met, but closely resembled."""
    folder = data_folder("mmsp2024") / "MMSP_Comparisons"
    sharp, theirs = (np.array(Image.open(folder / f"kodim19_{name}.png")) for name in ("original", "FP"))
    blur = KernelBlur.box(5)
    blurred = blur(torch.from_numpy(sharp / 255)[None, None])
    restored = {
        name: quantised(RedFixedPoint(iterations=40, denoiser=name)(blurred, blur)) for name in ("dct", "nlm")
    }
    # Theirs has 32.47 dB.
    assert psnr(sharp, restored["nlm"]) > 33
    assert psnr(sharp, restored["dct"]) > 31
    assert psnr(theirs, restored["nlm"]) > 36
    assert psnr(theirs, restored["dct"]) > 38


def test_unknown_denoisers_and_impossible_values_are_refused():
    with pytest.raises(ValueError, match=r"no denoiser is called 'meian'; did you mean 'median'\?"):
        RedFixedPoint(denoiser="meian")
    with pytest.raises(ValueError, match="noise must be positive, got 0"):
        RedDescent(noise=0)
    with pytest.raises(ValueError, match="iterations must be at least 0, got -1"):
        RedDescent(iterations=-1)

"""The two sanity rows, against their formulas."""

import numpy as np
import pytest
import torch

from model.classical.blur import KernelBlur
from model.classical.richardson_lucy import RichardsonLucy
from model.classical.wiener import Wiener
from tests.model.classical.conftest import decibels


def test_wiener_is_its_formula(camera, lopsided):
    blur, balance = KernelBlur(lopsided), 0.01
    blurred = blur(camera)
    h = blur.transfer(48, 40, camera.device).numpy()
    laplacian = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    power = np.abs(KernelBlur(laplacian).transfer(48, 40, camera.device).numpy()) ** 2
    spectrum = np.fft.rfft2(blurred[1, 0].numpy()) * h.conj() / (np.abs(h) ** 2 + balance * power)
    expected = np.fft.irfft2(spectrum, s=(48, 40))
    assert np.allclose(Wiener(balance)(blurred, blur)[1, 0].numpy(), expected, atol=1e-10)
    assert decibels(Wiener(1e-4)(blurred, blur), camera) > decibels(blurred, camera) + 6


@pytest.mark.parametrize("border", ["circular", "reflect"])
def test_richardson_lucy_restores_up_to_the_border(camera, border):
    blur = KernelBlur.box(3, border)
    blurred = blur(camera)
    restored = RichardsonLucy()(blurred, blur)
    assert decibels(restored, camera) > decibels(blurred, camera) + 3
    edge = (slice(None), slice(None), slice(0, 3))
    assert decibels(restored[edge], camera[edge]) > decibels(blurred[edge], camera[edge])


def test_black_pictures_stay_black_and_finite(camera):
    black = torch.zeros_like(camera)
    assert torch.equal(RichardsonLucy(3)(black, KernelBlur.box(3)), black)


def test_impossible_values_are_refused():
    with pytest.raises(ValueError, match="balance must be positive, got 0"):
        Wiener(0)
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        RichardsonLucy(0)

"""Degradations: the kernels are what they say, and the arithmetic is exact."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from model.data.blur import box_blur
from model.data.degradation import WEIGHT_SUM, Degradation, disc_kernel, gaussian_kernel, parse_blur
from model.data.photographs import read_luma
from model.errors import UserError


@pytest.fixture(scope="module")
def sharp(photographs) -> torch.Tensor:
    return torch.from_numpy(read_luma(photographs / "a.png"))[None, None]


@pytest.mark.parametrize("radius", [0.3, 0.5, 1.0, 2.5, 7.3])
def test_disc_is_a_disc(radius):
    kernel = disc_kernel(radius)
    side = kernel.shape[0]
    assert kernel.sum() == WEIGHT_SUM
    assert np.array_equal(kernel, kernel[::-1]) and np.array_equal(kernel, kernel.T)
    # The columns hold what lies under the half circle: the integral of 2 sqrt(r^2 - x^2), in closed form.
    edges = np.clip(np.arange(side + 1) - side / 2, -radius, radius)
    integral = edges * np.sqrt(radius**2 - edges**2) + radius**2 * np.arcsin(edges / radius)
    columns = np.diff(integral) / (np.pi * radius**2)
    np.testing.assert_allclose(kernel.sum(0) / WEIGHT_SUM, columns, atol=0.006)


@pytest.mark.parametrize("sigma", [0.8, 1.6, 4.0])
def test_gaussian_has_its_sigma(sigma):
    kernel = gaussian_kernel(sigma)
    assert kernel.sum() == WEIGHT_SUM
    assert np.array_equal(kernel, kernel[::-1]) and np.array_equal(kernel, kernel.T)
    place = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    deviation = np.sqrt((kernel.sum(0) * place**2).sum() / WEIGHT_SUM)
    # Sampled at whole pixels and cut where weights round to nothing.
    assert deviation == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize("blur", ["disc:2.5", "gaussian:1.6", "disc:0.4"])
def test_weighted_blur_is_scipys_in_float64(sharp, blur):
    name, size = parse_blur(blur)
    kernel = {"disc": disc_kernel, "gaussian": gaussian_kernel}[name](size) / WEIGHT_SUM
    # scipy calls the border that mirrors without repeating the edge pixel "mirror".
    exact = ndimage.correlate(sharp[0, 0].numpy().astype(np.float64), kernel, mode="mirror")
    whole = Degradation(blur)(sharp)[0, 0].numpy() * 255
    assert np.array_equal(whole, np.floor(exact + 0.5).astype(np.float32))
    fine = Degradation(blur, quantise=False)(sharp)[0, 0].numpy() * 255
    np.testing.assert_allclose(fine, exact, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_box_is_the_exact_one(sharp, size):
    assert torch.equal(Degradation(f"box:{size}")(sharp), box_blur(sharp, size).float() / 255)


def test_none_leaves_the_picture(sharp):
    assert torch.equal(Degradation("none")(sharp), sharp.float() / 255)


@pytest.mark.parametrize("quantise", [True, False])
def test_noise_has_its_variance_and_repeats_by_seed(quantise):
    grey = torch.full((1, 1, 400, 400), 128, dtype=torch.uint8)
    degrade = Degradation("box:5", noise=0.003, quantise=quantise)
    noisy = degrade(grey, torch.Generator().manual_seed(1))
    assert noisy.var().item() == pytest.approx(0.003 + quantise * (1 / 255) ** 2 / 12, rel=0.03)
    assert torch.equal(noisy, degrade(grey, torch.Generator().manual_seed(1)))
    assert not torch.equal(noisy, degrade(grey, torch.Generator().manual_seed(2)))
    levels = noisy * 255
    assert torch.equal(levels, levels.round()) == quantise


def test_black_and_white_stay_in_range_with_noise():
    image = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 1, 64, 32)
    noisy = Degradation("none", noise=0.01)(image, torch.Generator().manual_seed(0))
    assert (noisy.min(), noisy.max()) == (0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("boks:5", "no blur is called 'boks:5'"),
        ("box", "needs a size in pixels: box:SIDE"),
        ("box:4", "must be odd, from 1 to 63, got 4"),
        ("box:5.5", "must be odd"),
        ("disc:0", r"must be in \(0, 31\], got 0"),
        ("disc:nan", r"must be in \(0, 31\], got nan"),
        ("gaussian:99", r"must be in \(0, 7.75\]"),
        ("gaussian:-1", "must be in"),
        ("disc:wide", "needs a size in pixels: disc:RADIUS"),
    ],
)
def test_impossible_blurs_are_named(text, message):
    with pytest.raises(UserError, match=message):
        Degradation(text).check()


def test_floats_are_refused():
    with pytest.raises(TypeError, match=r"uint8 images, got torch\.float32"):
        Degradation()(torch.zeros(1, 1, 9, 9))

"""The blur and its regularised inverse, against numpy, scipy and linear algebra."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from model.networks.known_blur import KnownBlur

#: Neither symmetric nor square, with an even side.
LOPSIDED = [[0.05, 0.1, 0.0, 0.02], [0.2, 0.3, 0.1, 0.03], [0.0, 0.1, 0.1, 0.0]]
#: Whose transfer function is nowhere small: twice the middle exceeds the sum.
INVERTIBLE = [[0.0, 0.1, 0.02], [0.05, 0.7, 0.05], [0.0, 0.08, 0.0]]


def circular(image, kernel):
    """By scipy: convolution with the kernel's centre at half its sides, on a torus."""
    kernel = np.asarray(kernel)
    # scipy keeps an even kernel's centre there too, but mirrored; an odd frame avoids the question.
    rows, columns = (side + 1 - side % 2 for side in kernel.shape)
    framed = np.zeros((rows, columns))
    top, left = rows // 2 - kernel.shape[0] // 2, columns // 2 - kernel.shape[1] // 2
    framed[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return scipy.ndimage.convolve(image, framed, mode="wrap")


def apply(operator, kernel, image, **arguments):
    blur = KnownBlur(kernel, **arguments).double()
    x = torch.from_numpy(image)[None, None]
    return getattr(blur, operator)(x, blur.transfer(x))[0, 0].numpy()


@pytest.mark.parametrize("kernel", [5, LOPSIDED, INVERTIBLE])
@pytest.mark.parametrize("size", [(12, 17), (13, 10)])
def test_without_taper_it_is_the_circular_convolution(kernel, size):
    image = np.random.default_rng(0).random(size)
    rows = np.full((5, 5), 1 / 25) if kernel == 5 else kernel
    # The kernel is kept in float32.
    np.testing.assert_allclose(
        apply("blur", kernel, image, taper=0), circular(image, rows), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("kernel", [3, LOPSIDED])
def test_inverse_solves_the_regularised_least_squares_problem(kernel):
    """A+ y = (A^T A + eps)^-1 A^T y, with A as a matrix."""
    size, eps = (8, 9), 0.01
    pixels = size[0] * size[1]
    rows = np.full((3, 3), 1 / 9) if kernel == 3 else kernel
    matrix = np.stack([circular(unit.reshape(size), rows).ravel() for unit in np.eye(pixels)], axis=1)
    inverse = np.linalg.solve(matrix.T @ matrix + eps * np.eye(pixels), matrix.T)
    image = np.random.default_rng(1).random(size)
    # Brightness is kept as it is: the inverse would divide it by 1 + eps.
    centred, mean = image - image.mean(), image.mean()
    expected = (inverse @ centred.ravel()).reshape(size) + mean
    np.testing.assert_allclose(apply("invert", kernel, image, taper=0), expected, rtol=0, atol=1e-5)
    expected = (inverse @ matrix @ centred.ravel()).reshape(size) + mean
    np.testing.assert_allclose(apply("project", kernel, image, taper=0), expected, rtol=0, atol=1e-5)


def test_border_is_repeated_and_faded(photograph):
    """Every step by numpy with the full complex plane."""
    eps, taper = 0.01, 6
    image = photograph(1, 14, 23)[0, 0].double().numpy()
    mean = image.mean()
    padded = np.pad(image - mean, taper, mode="edge")

    def fade(length):
        position = np.arange(length + 2 * taper)
        return np.minimum(np.minimum(position, position[::-1]), taper) / taper

    padded *= np.outer(fade(14), fade(23))
    kernel = np.zeros(padded.shape)
    kernel[:3, :4] = LOPSIDED
    transfer = np.fft.fft2(np.roll(kernel, (-1, -2), (0, 1)))
    gain = transfer.conj() / (np.abs(transfer) ** 2 + eps)
    for operator, factor in {"blur": transfer, "invert": gain, "project": gain * transfer}.items():
        whole = np.fft.ifft2(np.fft.fft2(padded) * factor)
        np.testing.assert_allclose(whole.imag, 0, atol=1e-12)
        expected = whole.real[taper:-taper, taper:-taper] + mean
        np.testing.assert_allclose(
            apply(operator, LOPSIDED, image, eps=eps, taper=taper), expected, rtol=0, atol=1e-5
        )


def test_an_invertible_blur_is_undone():
    image = np.random.default_rng(2).random((11, 16))
    blurred = apply("blur", INVERTIBLE, image, taper=0)
    restored = apply("invert", INVERTIBLE, blurred, eps=0.0, taper=0)
    np.testing.assert_allclose(restored, image, rtol=0, atol=1e-12)


@pytest.mark.parametrize("taper", [0, 16])
@pytest.mark.parametrize("operator", ["blur", "invert", "project"])
def test_brightness_is_kept(operator, taper):
    np.testing.assert_allclose(
        apply(operator, 5, np.full((20, 30), 0.37), taper=taper), 0.37, rtol=0, atol=1e-12
    )
    if taper == 0:
        image = np.random.default_rng(3).random((20, 30))
        assert apply(operator, LOPSIDED, image, taper=0).mean() == pytest.approx(image.mean(), abs=1e-12)


def test_each_image_and_channel_by_itself():
    blur = KnownBlur(5, taper=8).double()
    images = torch.rand(2, 3, 10, 12, dtype=torch.float64)
    together = blur.invert(images, blur.transfer(images))
    alone = blur.invert(images[1:, 2:], blur.transfer(images))
    torch.testing.assert_close(together[1:, 2:], alone)


def test_a_kernel_larger_than_the_image_is_refused():
    blur = KnownBlur(5, taper=0)
    with pytest.raises(
        ValueError, match=r"9 x 4 pixels, with its border, is smaller than the kernel .*5 x 5"
    ):
        blur.transfer(torch.rand(1, 1, 4, 9))

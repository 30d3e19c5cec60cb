"""Degradations: the kernels are what they say, and the arithmetic is exact."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from model.data import jpeg
from model.data.blur import box_blur
from model.data.constants import compiled
from model.data.degradation import Degradation
from model.data.jpeg import jpeg_loss
from model.data.kernels import WEIGHT_SUM, blur_kernel, blur_kernels, kernel_reach
from model.data.photographs import read_luma
from model.errors import UserError


@pytest.fixture(scope="module")
def sharp(photographs) -> torch.Tensor:
    return torch.from_numpy(read_luma(photographs / "a.png"))[None, None]


def one_kernel(name: str, size: float) -> np.ndarray:
    return blur_kernels(name, torch.tensor([size], dtype=torch.float64), kernel_reach(name, size))[0].numpy()


@pytest.mark.parametrize("radius", [0.3, 0.5, 1.0, 2.5, 7.3])
def test_disc_is_a_disc(radius):
    kernel = one_kernel("disc", radius)
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
    kernel = one_kernel("gaussian", sigma)
    assert kernel.sum() == WEIGHT_SUM
    assert np.array_equal(kernel, kernel[::-1]) and np.array_equal(kernel, kernel.T)
    place = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    deviation = np.sqrt((kernel.sum(0) * place**2).sum() / WEIGHT_SUM)
    # Sampled at whole pixels and cut where weights round to nothing.
    assert deviation == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize("blur", ["disc:2.5", "gaussian:1.6", "disc:0.4"])
def test_weighted_blur_is_scipys_in_float64(sharp, blur):
    # scipy calls the border that mirrors without repeating the edge pixel "mirror".
    exact = ndimage.correlate(sharp[0, 0].numpy().astype(np.float64), blur_kernel(blur), mode="mirror")
    whole = Degradation(blur)(sharp)[0, 0].numpy() * 255
    assert np.array_equal(whole, np.floor(exact + 0.5).astype(np.float32))
    fine = Degradation(blur, quantise=False)(sharp)[0, 0].numpy() * 255
    np.testing.assert_allclose(fine, exact, rtol=1e-6)


@pytest.mark.parametrize(("name", "largest"), [("disc", 4.0), ("gaussian", 2.0), ("box", 7.0)])
def test_kernels_of_many_sizes_are_those_of_each(name, largest):
    sizes = torch.tensor([0.0, 0.02, 0.3, 1.0, 1.9, largest], dtype=torch.float64)
    reach = kernel_reach(name, largest)
    kernels = blur_kernels(name, sizes, reach).numpy()
    none = np.zeros_like(kernels[0])
    none[reach, reach] = kernels[0].sum()
    assert np.array_equal(kernels[0], none) and np.array_equal(kernels[1], none)
    for size, kernel in zip(sizes[2:].tolist(), kernels[2:], strict=True):
        alone = one_kernel(name, size)
        assert np.array_equal(kernel, np.pad(alone, reach - alone.shape[0] // 2))


@pytest.mark.parametrize("blur", ["disc:4", "gaussian:1.5", "box:7"])
def test_each_picture_has_its_own_blur(sharp, blur):
    """Each that was drawn is that of a kernel between none and the largest."""
    degrade = Degradation(blur, vary=True, quantise=False)
    batch = sharp[..., :48, :48].repeat(400, 1, 1, 1)
    blurred = degrade(batch, torch.Generator().manual_seed(3))
    assert torch.equal(blurred, degrade(batch, torch.Generator().manual_seed(3)))
    # The drawn sizes, found again by what the first draws of that generator are.
    shares = torch.rand(3, 400, generator=torch.Generator().manual_seed(3))[0]
    name, largest = blur.split(":")
    for index in (0, 1, 2, int(shares.argmin()), int(shares.argmax())):
        size = float(largest) * shares[index].item()
        kernel = one_kernel(name, size)
        exact = ndimage.correlate(
            batch[index, 0].numpy().astype(np.float64), kernel / kernel.sum(), mode="mirror"
        )
        # The size was drawn in float32: a point on the rim may fall to the other side.
        np.testing.assert_allclose(blurred[index, 0].numpy() * 255, exact, atol=0.1)
    # The more blur, the less is left of the contrast.
    contrast = blurred.std((1, 2, 3))
    assert (contrast[shares < 0.1].min() > contrast[shares > 0.9].max()) and contrast.unique().numel() > 3


def test_each_picture_has_its_own_noise():
    grey = torch.full((300, 1, 64, 64), 128, dtype=torch.uint8)
    noisy = Degradation("none", noise=0.003, quantise=False, vary=True)(
        grey, torch.Generator().manual_seed(0)
    )
    share = noisy.std((1, 2, 3)) / 0.003**0.5
    # Even from 0 to 1: mean 1/2, deviation 1/sqrt(12), give or take three of their own for 300 draws.
    assert share.mean().item() == pytest.approx(0.5, abs=0.05)
    assert share.std().item() == pytest.approx(12**-0.5, abs=0.04)
    assert share.max() < 1.05


@pytest.mark.parametrize("blur", ["disc:2.5", "gaussian:1.6", "box:5"])
def test_light_is_blurred_as_a_lens_does(sharp, blur):
    """The same in float64 through sRGB's curve; whole numbers are off by a level where they lie half-way."""
    level = sharp[0, 0].numpy() / 255
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    light = ndimage.correlate(light, blur_kernel(blur), mode="mirror")
    exact = 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    blurred = Degradation(blur, light=True)(sharp)[0, 0].numpy() * 255
    assert np.array_equal(blurred, np.rint(blurred))
    assert np.abs(blurred - exact).max() < 0.56
    # An edge between black and white spreads further over the black.
    edge = (torch.arange(32) > 15).to(torch.uint8).mul(255).expand(1, 1, 32, 32).contiguous()
    levels, lens = (Degradation(blur, light=lit)(edge)[0, 0, 16] for lit in (False, True))
    assert (lens >= levels).all() and lens.sum() > levels.sum() + 0.2


@pytest.mark.parametrize("shape", [(64, 80), (61, 75), (3, 9)])
@pytest.mark.parametrize("quality", [10, 30, 45, 50, 75, 90, 100])
def test_jpeg_loses_what_libjpeg_loses(sharp, shape, quality):
    picture = sharp[0, 0, : shape[0], : shape[1]].contiguous()
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "JPEG", quality=quality)
    theirs = np.asarray(Image.open(file)).astype(float)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.clip((jpeg._tables(torch.device("cpu"))[1].numpy() * scale + 50) // 100, 1, 255)
    # Pillow gives the table row by row.
    assert Image.open(file).quantization[0] == steps.flatten().tolist()
    ours = jpeg_loss(picture[None, None], torch.tensor([float(quality)]))[0, 0].numpy()
    assert np.array_equal(ours, np.rint(ours)) and ours.min() >= 0 and ours.max() <= 255
    # libjpeg's DCT is in whole numbers: a coefficient half-way between two steps may fall to the other one.
    lost, apart = np.abs(theirs - picture.numpy()).mean(), np.abs(ours - theirs).mean()
    assert apart < (0.2 * lost if quality < 100 else 0.2), (apart, lost)


def test_under_autocast_it_is_the_same(sharp):
    """Batch-norm statistics are measured under autocast, which multiplies matrices in half precision."""
    degrade = Degradation("disc:2", noise=1e-4, jpeg=75, light=True, vary=True)
    expected = degrade(sharp, torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = degrade(sharp, torch.Generator().manual_seed(2))
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@pytest.mark.parametrize("vary", [False, True])
@pytest.mark.parametrize(("blur", "radius"), [("disc:3", 3), ("box:7", 3), ("gaussian:1.6", 6)])
def test_an_image_must_be_larger_than_the_blur(sharp, blur, radius, vary):
    degrade = Degradation(blur, vary=vary)
    # A drawn Gaussian is not cut where its weights round to nothing.
    radius = degrade.radius if vary and blur.startswith("gaussian") else radius
    assert degrade.radius == radius
    degrade(sharp[..., : radius + 1, : radius + 1])
    with pytest.raises(ValueError, match=f"blur {blur} needs an image larger than {radius} pixels"):
        degrade(sharp[..., :radius, :40])


def test_each_picture_has_its_own_compression(sharp):
    batch = sharp[..., :64, :64].repeat(64, 1, 1, 1)
    lossy = Degradation("none", jpeg=20, vary=True)(batch, torch.Generator().manual_seed(5))
    quality = 100 - 80 * torch.rand(3, 64, generator=torch.Generator().manual_seed(5))[2]
    lost = (lossy * 255 - batch).abs().mean((1, 2, 3))
    assert torch.equal(lossy[9:10] * 255, jpeg_loss(batch[9:10], quality[9:10]).div(255) * 255)
    assert np.corrcoef(lost.numpy(), quality.numpy())[0, 1] < -0.8


def test_compiled_it_is_the_same(sharp):
    degrade = Degradation("disc:1", noise=1e-4, jpeg=75, light=True, vary=True)
    batch = sharp[..., :32, :32].repeat(3, 1, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as which torch.compile reports what it looks through
        found = compiled(degrade)(batch, torch.Generator().manual_seed(2))
    assert torch.equal(found, degrade(batch, torch.Generator().manual_seed(2)))


def test_what_is_done_is_said():
    words = Degradation("disc:4", noise=1e-4, jpeg=75, light=True, vary=True).describe()
    assert words == (
        "disc blur of radius 4 of light, Gaussian noise of variance 0.0001, JPEG of quality 75, "
        "drawn anew for every picture up to this, 8 bits"
    )
    assert Degradation(quantise=False).describe() == "5 x 5 box blur, not quantised"
    assert Degradation("none", light=True).describe() == "no blur, 8 bits"
    # There is nothing to blur, in levels or in light.
    Degradation("none", light=True, quantise=False).check()


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
        ("box:nan", "must be odd, from 1 to 63, got nan"),
        ("box:inf", "must be odd, from 1 to 63, got inf"),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jpeg": 101}, "--jpeg is a quality from 1 to 100, or 0 for no compression, got 101"),
        ({"jpeg": -1}, "got -1"),
        ({"jpeg": 75, "quantise": False}, "--jpeg makes 8-bit pictures"),
        ({"light": True, "quantise": False}, "--light makes 8-bit pictures"),
        ({"noise": float("nan")}, "--noise must not be negative, got nan"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        Degradation(**options).check()


def test_floats_are_refused():
    with pytest.raises(TypeError, match=r"uint8 images, got torch\.float32"):
        Degradation()(torch.zeros(1, 1, 9, 9))

"""IFAN's predicted filters: their order, their memory, and the defect of the published weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.memory import allocated_peak
from model.networks import build_network
from model.networks.ifan import TAPS, FilterPredictor

TINY = {"width": 4, "steps": 3, "depth": 2}


def build(**arguments):
    torch.manual_seed(11)
    network = build_network("ifan", {**TINY, **arguments}).double().eval()
    with torch.no_grad():
        for parameter in network.predictor.output.parameters():
            parameter.copy_(torch.rand(parameter.shape, dtype=parameter.dtype) - 0.5)
    return network


def rows_of(network, step, kind):
    """Rows of the predictor's last layer that belong to one step and kind, in the published order."""
    width, steps = network.predictor.width, network.predictor.steps
    if kind == "bias":
        start = steps * 2 * TAPS * width + step * width
        return slice(start, start + width)
    start = step * 2 * TAPS * width + (kind == "horizontal") * TAPS * width
    return slice(start, start + TAPS * width)


def test_steps_are_parts_of_one_layer():
    """All at once and then cut, as published: per step vertical then horizontal, by channel; biases last."""
    torch.manual_seed(2)
    width, steps = 6, 4
    predictor = FilterPredictor(width, 2, steps).double()
    with torch.no_grad():
        predictor.output.bias.uniform_()
    x = torch.rand(2, width, 3, 5, dtype=torch.float64)
    whole = F.conv2d(predictor.features(x), predictor.output.weight, predictor.output.bias)
    kernels = whole[:, : steps * width * 2 * TAPS]
    found = list(predictor(x))
    assert len(found) == steps
    for step, (vertical, horizontal, bias) in enumerate(found):
        for channel in range(width):
            for tap in range(TAPS):
                row = step * width * 2 * TAPS + channel * TAPS + tap
                torch.testing.assert_close(vertical[:, channel, tap], kernels[:, row])
                torch.testing.assert_close(horizontal[:, channel, tap], kernels[:, row + width * TAPS])
            last = steps * width * 2 * TAPS + step * width + channel
            torch.testing.assert_close(bias[:, channel], whole[:, last])


def test_filters_of_one_do_nothing(photograph):
    """With the middle weights 1 and no bias, what is filtered is only rectified."""
    network = build()
    with torch.no_grad():
        network.predictor.output.weight.zero_()
        network.predictor.output.bias.zero_()
        middle = torch.arange(network.predictor.steps * 2 * network.predictor.width) * TAPS + 1
        network.predictor.output.bias[middle] = 1
        image = photograph(1, 32, 40).double()
        *skips, x = network.encoder(image)
        for _ in range(network.predictor.steps):
            x = F.leaky_relu(x, 0.1)
        torch.testing.assert_close(network(image) - image, network.decoder(x, skips))


@pytest.mark.parametrize("kind", ["vertical", "horizontal", "bias"])
def test_which_weights_matter(kind, photograph):
    """With the published defect the weights for the rows have no influence; nothing else lacks it."""
    image = photograph(1, 32, 40).double()
    for shared in (False, True):
        network = build(shared_kernel=shared)
        rows = rows_of(network, 1, kind)
        network(image).sum().backward()
        gradient = network.predictor.output.bias.grad[rows].abs()
        assert bool((gradient > 0).all()) is not (shared and kind == "horizontal")
        assert bool((gradient == 0).all()) is (shared and kind == "horizontal")


def test_shared_kernel_is_the_vertical_one(photograph):
    """A right network whose horizontal weights are its vertical ones does what the defect does."""
    image = photograph(1, 32, 40).double()
    shared, right = build(shared_kernel=True), build()
    with torch.no_grad():
        assert not torch.allclose(shared(image), right(image), atol=1e-6)
        for step in range(3):
            for parameter in right.predictor.output.parameters():
                parameter[rows_of(right, step, "horizontal")] = parameter[rows_of(right, step, "vertical")]
        torch.testing.assert_close(shared(image), right(image))


def test_residual_goes_through_the_last_leaky_relu(photograph):
    """Its negative part is a tenth of what the last convolution says."""
    network = build()
    seen = []
    network.decoder.output[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    image = photograph(1, 32, 40).double()
    with torch.no_grad():
        residual = network(image) - image
    raw = seen[0]
    assert (raw < 0).any() and (raw > 0).any()
    torch.testing.assert_close(residual, torch.where(raw > 0, raw, raw * 0.1))


def test_initial_weights_are_xavier_s():
    network = build_network("ifan")
    for layer, gain in ((network.encoder.levels[3][1][0], 1.0), (network.predictor.output, 1.5)):
        fans = (layer.in_channels + layer.out_channels) * layer.kernel_size[0] ** 2
        # Uniform: the deviation is the bound over the root of 3.
        assert layer.weight.std().item() == pytest.approx(gain * (2 / fans) ** 0.5, rel=0.02)
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert not any(bias.any() for bias in biases)


def test_filters_of_all_steps_never_exist_at_once():
    width, steps, size = 16, 17, 64
    predictor = FilterPredictor(width, 1, steps).eval()
    x = torch.rand(1, width, size, size)
    all_filters = steps * width * (2 * TAPS + 1) * size * size * 4

    def run():
        with torch.no_grad():
            for filters in predictor(x):
                del filters

    run()
    assert allocated_peak(run) < all_filters / 4


def test_padding_does_not_shift_the_picture(photograph):
    """As for XY-Deblur. A pixel depends on others up to 304 away, by 27 layers at an eighth of the size."""
    network = build_network("ifan", {"width": 4, "steps": 1, "depth": 1}).eval()
    picture = photograph(1, 401, 403)
    with torch.no_grad():
        padded, whole = network(picture), network(picture[..., :400, :400])
    torch.testing.assert_close(padded[..., :64, :64], whole[..., :64, :64])

"""DDNet's projection on what the blur hides: the identities that hold whatever the network says."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model.networks import build_network

TINY = {"width": 8, "blocks": 2, "taper": 16}
INVERTIBLE = [[0.0, 0.1, 0.02], [0.05, 0.7, 0.05], [0.0, 0.08, 0.0]]


def with_image_estimate(network: nn.Module, change) -> nn.Module:
    """The same network, whose estimate f goes through `change`."""
    network.image_head.register_forward_hook(lambda module, inputs, output: change(output))
    return network


def build(**arguments):
    torch.manual_seed(7)
    return build_network("ddnet", {**TINY, **arguments}).double().eval()


def noise(f):
    return torch.rand(f.shape, dtype=f.dtype, generator=torch.Generator().manual_seed(1))


def identity_filter(network):
    with torch.no_grad():
        for parameter in network.filter_head.output.parameters():
            parameter.zero_()
        network.filter_head.output.bias[12] = 1
    return network


def restore(network, image):
    with torch.no_grad():
        return network(image)


def test_nothing_is_added_where_nothing_is_hidden(photograph):
    """With a blur that is none and hardly any regularisation: z = y for every f."""
    image = photograph(1, 20, 28).double()
    network = identity_filter(with_image_estimate(build(blur=1, eps=1e-14), noise))
    torch.testing.assert_close(restore(network, image), image, rtol=0, atol=1e-11)


def test_an_invertible_blur_leaves_no_choice(photograph):
    """z = A+ y, whatever f is."""
    image = photograph(1, 20, 28).double()
    arguments = {"blur": INVERTIBLE, "eps": 1e-12, "taper": 16}
    free = restore(identity_filter(build(**arguments)), image)
    forced = restore(identity_filter(with_image_estimate(build(**arguments), noise)), image)
    started = restore(build(**arguments, output_gain=0.0), image)
    # What is left is that the border of f is repeated and cut, so that A does not see quite f.
    inside = (..., slice(8, -8), slice(8, -8))
    torch.testing.assert_close(free[inside], started[inside], rtol=0, atol=1e-3)
    torch.testing.assert_close(forced[inside], started[inside], rtol=0, atol=1e-3)


def test_blurring_the_result_gives_what_was_blurred(photograph):
    """A z = y up to eps / |H|^2 in every frequency, on a torus, where A is exact."""
    network = build(blur=INVERTIBLE, eps=1e-4)
    network.blur.taper = 0
    y = photograph(1, 24, 32).double()
    transfer = network.blur.transfer(y)
    f = noise(y)
    z = f - network.blur.project(f, transfer) + network.blur.invert(y, transfer)
    difference = torch.fft.rfft2(network.blur.blur(z, transfer) - y).abs()
    power = transfer.abs().square()
    allowed = 1e-4 / power * (torch.fft.rfft2(y).abs() + (transfer * torch.fft.rfft2(f)).abs())
    assert (difference <= allowed + 1e-9).all()
    assert difference.max() > 1e-3


def test_a_constant_added_to_the_estimate_does_not_matter(photograph):
    image = photograph(1, 20, 28).double()
    shifted = with_image_estimate(build(), lambda f: f + 3.7)
    torch.testing.assert_close(restore(shifted, image), restore(build(), image), rtol=0, atol=1e-12)


def test_an_untrained_network_without_gain_is_the_inverse_filter(photograph):
    """And that inverse alone brings a box-blurred photograph nearer to the sharp one."""
    sharp = photograph(1, 100, 120).double()
    blurred = F.avg_pool2d(F.pad(sharp, (2,) * 4, mode="reflect"), 5, stride=1)
    network = build(output_gain=0.0)
    restored = restore(network, blurred)
    padded = F.pad(blurred, (4,) * 4, mode="replicate")
    inverted = network.blur.invert(padded, network.blur.transfer(padded))
    torch.testing.assert_close(restored, inverted[..., 4:-4, 4:-4], rtol=0, atol=1e-14)
    inside = (..., slice(20, -20), slice(20, -20))
    before, after = ((x - sharp)[inside].square().mean().log10() * -10 for x in (blurred, restored))
    assert after > before + 1


def test_the_same_filter_and_operator_for_all_colours(photograph):
    """A grey picture in three channels stays grey if the estimate is."""
    grey = photograph(1, 20, 28).double().expand(1, 3, 20, 28)
    network = with_image_estimate(build(channels=3), lambda f: f[:, :1].expand_as(f))
    restored = restore(network, grey)
    torch.testing.assert_close(restored[:, 1:], restored[:, :1].expand(1, 2, 20, 28))


def test_the_blur_is_no_weight(photograph):
    image = photograph(1, 20, 28).double()
    box, other = build(blur=5), build(blur=7)
    assert "kernel" not in " ".join(box.state_dict())
    assert box.state_dict().keys() == other.state_dict().keys()
    other.load_state_dict(box.state_dict())
    assert not torch.allclose(restore(box, image), restore(other, image), atol=1e-3)


def test_autocast_rounds_neither_operators_nor_filter(photograph):
    network = build(output_gain=0.0).float()
    image = photograph(1, 20, 28)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = restore(network, image)
    assert torch.equal(rounded, restore(network, image))


def test_network_is_the_described_one(photograph):
    """Layer by layer with torch's functions, from the weights in the order in which they are used."""
    network = build()
    image, inverted = photograph(1, 24, 32).double(), photograph(1, 24, 32).double().flip(-1)
    weights = iter(network.state_dict().values())

    def convolve(x, activation=True):
        weight, bias = next(weights), next(weights)
        x = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return F.leaky_relu(x, 0.2) if activation else x

    x = convolve(F.pixel_unshuffle(torch.cat([image, inverted], 1), 2))
    x = entered = convolve(F.pixel_unshuffle(x, 2))
    for _ in range(TINY["blocks"]):
        first = convolve(x)
        second = convolve(torch.cat([first, x], 1))
        third = convolve(torch.cat([second, first, x], 1))
        x = x + convolve(torch.cat([third, second, first, x], 1), activation=False)
    x = convolve(x + entered)
    for _ in range(2):
        x = F.leaky_relu(F.pixel_shuffle(convolve(x, activation=False), 2), 0.2)
    expected = [convolve(convolve(x), activation=False) for _ in range(2)]
    assert next(weights, None) is None
    with torch.no_grad():
        for found, wanted in zip(network.estimates(image, inverted), expected, strict=True):
            torch.testing.assert_close(found, wanted)
    assert [x.shape[1] for x in expected] == [1, 25]


@pytest.mark.parametrize("channels", [1, 3])
def test_cost_is_the_published(channels):
    network = build_network("ddnet", {"channels": channels})
    image = torch.rand(1, channels, 128, 128)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.estimates(image, image)
    # 4.63e9 multiply-adds for luma; colours change only the first and the last layer.
    first, last = 4 * 2 * (channels - 1) * 64 * 9 * 64**2, (channels - 1) * 64 * 128**2
    assert counter.get_total_flops() / 2 == pytest.approx(4.63e9 + first + last, abs=6e6)

"""XY-Deblur's second decoder: the first one with turned kernels."""

import copy

import torch
from torch import nn

from model.networks import build_network

TINY = {"width": 4, "blocks": 1}


def features_of(network, image):
    features = []
    for level in network.encoder:
        image = level(image)
        features.append(image)
    return features


def test_second_residual_is_that_of_a_decoder_with_turned_kernels(photograph):
    """Not square, so that a wrong pair of turns cannot go unnoticed."""
    network = build_network("xydeblur", TINY).double().eval()
    image = photograph(1, 24, 40).double()
    turned_decoder = copy.deepcopy(network.decoder)
    with torch.no_grad():
        for layer in turned_decoder.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.copy_(torch.rot90(layer.weight, -1, (-2, -1)))
        upright, turned = network.residuals(image)
        features = features_of(network, image)
        torch.testing.assert_close(upright, network.decoder(features))
        torch.testing.assert_close(turned, turned_decoder(features))
    assert not torch.allclose(upright, turned, atol=1e-3)


def test_features_with_fourfold_symmetry_give_turned_residuals(photograph):
    """What looks the same after a quarter turn is decoded alike, and only the result is turned back."""
    network = build_network("xydeblur", TINY).double().eval()

    def symmetric(x):
        return sum(torch.rot90(x, quarters, (-2, -1)) for quarters in range(4))

    for level in network.encoder:
        level.register_forward_hook(lambda module, inputs, output: symmetric(output))
    with torch.no_grad():
        upright, turned = network.residuals(photograph(1, 32, 32).double())
    torch.testing.assert_close(turned, torch.rot90(upright, -1, (-2, -1)))
    assert not torch.allclose(turned, upright, atol=1e-3)


def test_padding_does_not_shift_the_picture(photograph):
    """A picture whose sides are multiples of 4 is the same inside a larger one, far from the border."""
    network = build_network("xydeblur", TINY).eval()
    picture = photograph(1, 97, 99)
    with torch.no_grad():
        padded, whole = network(picture), network(picture[..., :96, :96])
    # At most 5 pixels of 3 x 3 convolutions on each of three levels: 5 (1 + 2 + 4) < 48.
    torch.testing.assert_close(padded[..., :48, :48], whole[..., :48, :48])


def test_channels_last_stays_channels_last():
    """Turned features keep the layout in which the convolutions are fast."""
    network = build_network("xydeblur", TINY).to(memory_format=torch.channels_last).eval()
    layouts = []
    network.decoder.blocks.register_forward_hook(
        lambda module, inputs, output: layouts.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    with torch.no_grad():
        network(torch.rand(1, 1, 24, 40).to(memory_format=torch.channels_last))
    assert layouts == [True, True]

"""The paper's U-Net: its size, its shapes, its residual, its precision."""

import pytest
import torch
from torch import nn

from model.errors import UserError
from model.networks import build_network, parameter_count

TINY = {"widths": (4, 8), "depth": 1}


def test_parameter_count_is_the_paper_s():
    network = build_network("unet")
    statistics = sum(
        buffer.numel() for name, buffer in network.named_buffers() if not name.endswith("num_batches_tracked")
    )
    assert parameter_count(network) == 4_891_216
    assert statistics == 7_360


def test_batch_norm_is_keras_s():
    layers = [layer for layer in build_network("unet").modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(layers) == 45
    assert {(layer.eps, layer.momentum) for layer in layers} == {(1e-3, 0.01)}


def test_layers_of_one_shape_start_differently():
    block = build_network("unet").encoder[3]
    convolutions = [layer.weight for layer in block if isinstance(layer, nn.Conv2d)][1:]
    assert not torch.equal(convolutions[0], convolutions[1])
    for weight in convolutions:
        # He: variance 2 / fan_in; 147,456 draws give the deviation within 1 %.
        assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (16, 16), (17, 31), (45, 64), (100, 7)])
def test_any_size_comes_back_as_it_went_in(size):
    network = build_network("unet", {"depth": 1}).eval()
    with torch.no_grad():
        restored = network(torch.rand(2, 1, *size))
    assert restored.shape == (2, 1, *size)
    assert torch.isfinite(restored).all()


def test_padding_does_not_shift_the_picture():
    """A picture whose sides are multiples of 16 is the same inside a larger one, far from the border."""
    network = build_network("unet", TINY).eval()
    picture = torch.rand(1, 1, 65, 63)
    with torch.no_grad():
        padded = network(picture)
        whole = network(picture[..., :64, :48])
    # Two pixels of 3 x 3 convolutions on each of two levels reach less than 16 pixels.
    torch.testing.assert_close(padded[..., :48, :32], whole[..., :48, :32])


def test_output_is_input_plus_residual():
    network = build_network("unet", TINY).eval()
    blurred = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        restored = network(blurred)
        network.output.weight.mul_(2)
        doubled = network(blurred)
        network.output.weight.zero_()
        untouched = network(blurred)
    assert torch.equal(untouched, blurred)
    assert not torch.equal(restored, blurred)
    torch.testing.assert_close(doubled - blurred, 2 * (restored - blurred))


def test_output_gain_zero_starts_at_the_identity():
    blurred = torch.rand(1, 1, 32, 32)
    assert torch.equal(build_network("unet", {**TINY, "output_gain": 0.0})(blurred), blurred)


def test_bfloat16_autocast_adds_the_residual_in_float32():
    network = build_network("unet", {**TINY, "output_gain": 0.0}).eval()
    # Of no use in bfloat16: its step near 0.7 is 1/256.
    blurred = 0.7 + torch.rand(1, 1, 32, 32) * 1e-4
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        restored = network(blurred)
    assert restored.dtype == torch.float32
    assert torch.equal(restored, blurred)


def test_autocast_is_close_to_float32():
    network = build_network("unet", TINY).eval()
    blurred = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        exact = network(blurred)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(blurred)
    assert rounded.dtype == torch.float32
    # bfloat16 keeps 8 bits; seven layers add up a few of its steps.
    torch.testing.assert_close(
        rounded - blurred, exact - blurred, rtol=0, atol=0.05 * (exact - blurred).abs().max()
    )
    assert not torch.equal(rounded, exact)


def test_gradient_reaches_every_parameter():
    network = build_network("unet").train()
    loss = (network(torch.rand(2, 1, 32, 32)) - torch.rand(2, 1, 32, 32)).abs().mean()
    loss.backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_channels_last_gives_the_same():
    network = build_network("unet", TINY).eval()
    blurred = torch.rand(2, 1, 32, 48)
    with torch.no_grad():
        plain = network(blurred)
        other = network.to(memory_format=torch.channels_last)(blurred.to(memory_format=torch.channels_last))
    torch.testing.assert_close(other, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 32, 32), (32, 32)])
def test_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"N x 1 x H x W luma, got shape \("):
        build_network("unet", TINY)(torch.rand(shape))


def test_unknown_network_and_arguments_are_refused():
    with pytest.raises(UserError, match="'unnet'; did you mean 'unet'"):
        build_network("unnet")
    with pytest.raises(UserError, match="width"):
        build_network("unet", {"width": 3})
    with pytest.raises(UserError, match="depth must be at least 1, got 0"):
        build_network("unet", {"depth": 0})

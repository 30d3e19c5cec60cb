"""Restormer's block against its formulas, and a cost that grows with the pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from model.networks import build_network
from model.networks.published import load_published
from model.networks.restormer import ChannelAttention, ChannelNorm, GatedFeedForward, TransformerBlock
from model.torchvision_import import import_torchvision


def random_block(module):
    """In float64, with norms and temperatures that are not the trivial ones they start with."""
    torch.manual_seed(3)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim != 4:
                parameter.add_(torch.rand_like(parameter))
    return module


def test_norm_is_over_the_channels_of_a_pixel():
    x = torch.rand(2, 6, 5, 7, dtype=torch.float64) * 3 - 1
    norm = random_block(ChannelNorm(6))
    mean = x.mean(1, keepdim=True)
    deviation = ((x - mean).square().mean(1, keepdim=True) + 1e-5).sqrt()
    expected = (x - mean) / deviation * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_between_normalised_channels(heads):
    width, height, columns = 8, 5, 7
    attention = random_block(ChannelAttention(width, heads))
    x = torch.rand(2, width, height, columns, dtype=torch.float64) - 0.5
    # One head and one pair of channels at a time.
    qkv = F.conv2d(F.conv2d(x, attention.qkv.weight), attention.depthwise.weight, padding=1, groups=3 * width)
    q, k, v = qkv[:, :width], qkv[:, width : 2 * width], qkv[:, 2 * width :]
    each = width // heads
    mixed = torch.zeros_like(v)
    for n in range(2):
        for head in range(heads):
            channels = range(head * each, (head + 1) * each)
            for i in channels:
                scores = torch.stack(
                    [
                        (q[n, i] * k[n, j]).sum()
                        / (q[n, i].norm() * k[n, j].norm())
                        * attention.temperature[head, 0, 0]
                        for j in channels
                    ]
                )
                for weight, j in zip(scores.softmax(0), channels, strict=True):
                    mixed[n, i] += weight * v[n, j]
    torch.testing.assert_close(attention(x), F.conv2d(mixed, attention.project.weight))


def test_an_empty_feature_map_has_a_finite_gradient():
    attention = ChannelAttention(4, 2)
    x = torch.zeros(1, 4, 6, 6, requires_grad=True)
    attention(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in attention.parameters())


def test_the_first_half_gates_the_second():
    width, hidden = 6, 5
    layer = random_block(GatedFeedForward(width, hidden))
    x = torch.rand(2, width, 5, 7, dtype=torch.float64) - 0.5
    expanded = F.conv2d(
        F.conv2d(x, layer.expand.weight), layer.depthwise.weight, padding=1, groups=2 * hidden
    )
    gate, value = expanded[:, :hidden], expanded[:, hidden:]
    exact_gelu = gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
    torch.testing.assert_close(layer(x), F.conv2d(exact_gelu * value, layer.project.weight))


def test_both_parts_of_a_block_are_residual():
    block = random_block(TransformerBlock(8, 2, 2.66))
    x = torch.rand(1, 8, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        middle = x + block.attention(block.attention_norm(x))
        expected = middle + block.feed_forward(block.feed_forward_norm(middle))
        torch.testing.assert_close(block(x), expected)
        block.attention.project.weight.zero_()
        block.feed_forward.project.weight.zero_()
        assert torch.equal(block(x), x)


@pytest.mark.parametrize(("width", "hidden"), [(48, 127), (96, 255), (192, 510), (384, 1021)])
def test_hidden_channels_are_cut_off_not_rounded(width, hidden):
    with torch.device("meta"):
        block = TransformerBlock(width, 1, 2.66)
    assert block.feed_forward.project.in_channels == hidden


def test_widths_and_heads_of_the_levels():
    with torch.device("meta"):
        network = build_network("restormer", {"channels": 3})

    def shape(level):
        return [(block.attention.qkv.in_channels, block.attention.heads) for block in level]

    assert [shape(level) for level in network.encoder] == [[(48, 1)] * 4, [(96, 2)] * 6, [(192, 4)] * 6]
    assert shape(network.latent) == [(384, 8)] * 8
    assert [shape(level) for level in network.decoder] == [[(192, 4)] * 6, [(96, 2)] * 6, [(96, 1)] * 4]
    assert shape(network.refinement) == [(96, 1)] * 4
    assert sum(p.numel() for p in network.latent.parameters()) == 14_370_448
    assert network.multiple == 8


def test_cost_grows_with_the_pixels_and_not_their_square():
    with torch.device("meta"):
        network = build_network("restormer", {"blocks": [1, 1, 1, 1]})

    def flops(height, width):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 1, height, width, device="meta"))
        return counter.get_total_flops()

    assert flops(256, 512) == 8 * flops(128, 128)


def test_the_same_picture_as_deepinv_s(tmp_path, photograph):
    """Another library's Restormer, its random weights loaded as a published file."""
    import_torchvision()
    models = pytest.importorskip("deepinv.models")
    torch.manual_seed(0)
    sizes = {"dim": 8, "num_blocks": [1, 2, 1, 2], "num_refinement_blocks": 1, "heads": [1, 2, 2, 4]}
    theirs = models.Restormer(**sizes, LayerNorm_type="WithBias", pretrained=None).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save({"params": theirs.state_dict()}, tmp_path / "restormer.pth")
    ours, _ = load_published(tmp_path / "restormer.pth")
    # Its own padding is left out: a multiple of 8.
    blurred = photograph(3, 40, 48)
    with torch.no_grad():
        expected = theirs(blurred)
        torch.testing.assert_close(ours.eval()(blurred), expected, rtol=1e-5, atol=1e-4)
    assert (expected - blurred).abs().max() > 1

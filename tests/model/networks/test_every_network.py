"""What holds for every network: its size, shapes, residual, precision, gradients, and that it can learn."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model.errors import UserError
from model.networks import NETWORKS, build_network, parameter_count
from model.weights import Card, load_network, save_weights
from tests.model.networks.conftest import TINY

CHANNELS = [1, 3]

#: Fewer layers yet, where a test takes many steps or traces every layer.
SHALLOW = {
    "xydeblur": {"width": 8},
    "restormer": {"blocks": [1, 1], "heads": [1, 2]},
    "ddnet": {"blocks": 1},
    "ifan": {"steps": 2, "depth": 1},
    "dncnn": {"width": 16},
}

#: Parameters of the public definitions.
PUBLISHED_PARAMETERS = [
    ("xydeblur", 3, 4_918_627),
    ("xydeblur", 1, 4_917_473),
    ("restormer", 3, 26_126_644),
    ("restormer", 1, 26_124_052),
    ("ddnet", 1, 2_938_330),
    ("ifan", 3, 10_476_996),
]

#: Multiply-adds of the convolutions of the public definitions, in 1e9, to the digits that are known.
PUBLISHED_GMAC = [
    ("xydeblur", (256, 256), 68.7),
    ("xydeblur", (720, 1280), 965.9),
    ("restormer", (256, 256), 141.0),
    ("ifan", (720, 1280), 361.5),
]


def build(name: str, channels: int, **arguments: object) -> nn.Module:
    torch.manual_seed(5)
    return build_network(name, {**TINY[name], "channels": channels, **arguments})


def on_meta(name: str, channels: int) -> nn.Module:
    """At full size, without memory or time."""
    with torch.device("meta"):
        return build_network(name, {"channels": channels})


def test_no_network_is_left_out():
    assert set(NETWORKS) == {*TINY, "unet"}


@pytest.mark.parametrize(("name", "channels", "count"), PUBLISHED_PARAMETERS)
def test_parameter_count_is_the_published(name, channels, count):
    assert parameter_count(on_meta(name, channels)) == count


@pytest.mark.parametrize(("name", "size", "gmac"), PUBLISHED_GMAC)
def test_cost_of_the_convolutions_is_the_published(name, size, gmac):
    """Counts every convolution at its size: a layer at the wrong scale, or used once too often, shows."""
    network, image = on_meta(name, 3), torch.empty(1, 3, *size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert convolutions / 2e9 == pytest.approx(gmac, abs=0.06)


def test_networks_say_whether_they_know_the_blur(name):
    assert NETWORKS[name].knows_blur is (name == "ddnet")


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (3, 50), (16, 16), (33, 31)])
def test_any_size_comes_back_as_it_went_in(name, channels, size):
    network = build(name, channels).eval()
    with torch.no_grad():
        restored = network(torch.rand(2, channels, *size))
    assert restored.shape == (2, channels, *size)
    assert restored.dtype == torch.float32
    assert torch.isfinite(restored).all()


def test_images_of_a_batch_do_not_mix(name, photograph):
    network = build(name, 1).eval()
    batch = torch.cat([photograph(1, 24, 40), photograph(1, 24, 40).flip(-1)])
    with torch.no_grad():
        torch.testing.assert_close(network(batch)[1:], network(batch[1:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["xydeblur", "restormer", "ifan", "dncnn"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_output_is_input_plus_residual(name, channels, photograph):
    blurred = photograph(channels, 24, 40)
    with torch.no_grad():
        restored, doubled, untouched = (
            build(name, channels, output_gain=gain).eval()(blurred) for gain in (1.0, 2.0, 0.0)
        )
    assert torch.equal(untouched, blurred)
    assert not torch.equal(restored, blurred)
    torch.testing.assert_close(doubled - blurred, 2 * (restored - blurred), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["xydeblur", "restormer", "ifan", "dncnn"])
def test_bfloat16_autocast_does_not_round_the_image(name):
    network = build(name, 1, output_gain=0.0).eval()
    # Of no use in bfloat16: its step near 0.7 is 1/256.
    blurred = 0.7 + torch.rand(1, 1, 32, 32) * 1e-4
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        restored = network(blurred)
    assert torch.equal(restored, blurred)


def test_autocast_is_close_to_float32(name, photograph):
    network = build(name, 1).eval()
    blurred = photograph(1, 32, 48)
    with torch.no_grad():
        exact = network(blurred)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(blurred)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    # bfloat16 keeps 8 bits; some tens of layers add up a few of its steps.
    error, change = (rounded - exact).norm(), (exact - blurred).norm()
    assert error < 0.05 * change


def test_bfloat16_gradient_points_the_same_way(name, photograph):
    blurred, sharp = photograph(1, 32, 32), photograph(1, 32, 32).flip(-1)

    def gradient(enabled: bool) -> torch.Tensor:
        network = build(name, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            restored = network(blurred)
        (restored - sharp).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    exact, rounded = gradient(False), gradient(True)
    assert torch.isfinite(rounded).all()
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.99


def test_float64_is_kept(name, photograph):
    network = build(name, 1).double().eval()
    blurred = photograph(1, 16, 20).double()
    with torch.no_grad():
        restored = network(blurred)
        single = network.float()(blurred.float())
    assert restored.dtype == torch.float64
    torch.testing.assert_close(single, restored.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", CHANNELS)
def test_gradient_reaches_every_parameter(name, channels, photograph):
    network = build(name, channels).double().train()
    blurred = photograph(channels, 32, 32).double()
    (network(blurred) - blurred.flip(-1)).abs().mean().backward()
    silent = [path for path, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    if name == "ddnet":
        # Here rounding alone makes it more than zero: a constant added to the estimate cancels, by design.
        assert network.image_head.output.bias.grad.abs().max() < 1e-15


def test_gradient_is_that_of_a_small_step(name, photograph):
    """The derivative along the gradient itself, by central differences in float64."""
    network = build(name, 1).double()
    blurred = photograph(1, 16, 16).double()
    weights = torch.rand_like(blurred)

    def value() -> torch.Tensor:
        return (network(blurred) * weights).sum()

    parameters = list(network.parameters())
    gradient = torch.autograd.grad(value(), parameters)
    squared = sum(g.square().sum() for g in gradient)
    step = 1e-6 / squared.sqrt()
    with torch.no_grad():
        ends = []
        for sign in (1, -2):
            for parameter, direction in zip(parameters, gradient, strict=True):
                parameter += sign * step * direction
            ends.append(value())
        # Kinks of the activations within the step leave a little.
        torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), squared, rtol=1e-3, atol=0)


def test_a_few_steps_overfit_a_photograph(name, photograph):
    """From the blurred picture (DDNet: from its inverse) most of the way to the sharp one."""
    sharp = photograph(1, 16, 16)
    blurred = F.avg_pool2d(F.pad(sharp, (2, 2, 2, 2), mode="reflect"), 5, stride=1)
    network = build(name, 1, **SHALLOW[name], output_gain=0.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(120):
        loss = (network(blurred) - sharp).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        # IFAN multiplies features by predicted filters: its authors clip at 0.5, too.
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] <= (blurred - sharp).abs().mean().item() * (1 + 1e-6)
    assert max(losses[-5:]) < 0.6 * losses[0]


def test_channels_last_gives_the_same(name, photograph):
    network = build(name, 3).eval()
    blurred = photograph(3, 24, 40)
    with torch.no_grad():
        plain = network(blurred)
        other = network.to(memory_format=torch.channels_last)(blurred.to(memory_format=torch.channels_last))
    torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)


def test_weights_survive_the_disk(name, tiny, tmp_path, photograph):
    arguments = {**tiny, "channels": 3}
    network = build(name, 3).eval()
    save_weights(tmp_path / "w.safetensors", network, Card(name, arguments))
    loaded, card = load_network(tmp_path / "w.safetensors")
    assert card.network == name
    blurred = photograph(3, 20, 28)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(blurred), network(blurred))


def test_weights_of_other_channels_are_refused(name, tiny, tmp_path):
    save_weights(tmp_path / "w.safetensors", build(name, 1), Card(name, {**tiny, "channels": 3}))
    with pytest.raises(UserError, match=f"do not fit network '{name}': size mismatch"):
        load_network(tmp_path / "w.safetensors")


def test_compiles_as_one_graph(name, photograph):
    """Traced without a break, forward and backward, in half precision; run by torch's own operators."""
    torch._dynamo.reset()
    network = build(name, 1, **SHALLOW[name])
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    blurred = photograph(1, 18, 24)

    # Without the one parameter whose gradient is zero but for rounding.
    parameters = [p for path, p in network.named_parameters() if path != "image_head.output.bias"]

    def both(run) -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            restored = run(blurred)
        return [restored.detach(), *torch.autograd.grad(restored.square().sum(), parameters)]

    for found, expected in zip(both(compiled), both(network), strict=True):
        # The same operations; sums of gradients, and their rounding to bfloat16, may come in another order.
        assert (found - expected).norm() <= 0.02 * expected.norm()


@pytest.mark.parametrize("shape", [(1, 2, 32, 32), (3, 32, 32), (32, 32), (1, 3, 0, 8)])
def test_wrong_shape_is_named(name, shape):
    with pytest.raises(ValueError, match=r"takes N x 3 x H x W RGB, got shape \("):
        build(name, 3)(torch.rand(shape))
    with pytest.raises(ValueError, match=r"takes N x 1 x H x W luma, got shape \("):
        build(name, 1)(torch.rand(shape))


@pytest.mark.parametrize(
    ("network", "argument", "words"),
    [
        ("xydeblur", {"channels": 2}, "channels must be 1 for luma or 3 for RGB, got 2"),
        ("xydeblur", {"blocks": 0}, "blocks must be at least 1, got 0"),
        ("restormer", {"blocks": [1]}, "at least two"),
        ("restormer", {"blocks": [1, 1]}, "a number for every level"),
        ("restormer", {"heads": [3, 2, 2]}, "divisible by its heads, got 8 and 3"),
        ("restormer", {"expansion": 0.1}, "expansion 0.1 leaves no hidden channel"),
        ("ddnet", {"blur": 4}, "odd, positive size, got 4"),
        ("ddnet", {"blur": [[0.5, 0.4]]}, "must sum to 1, got 0.9"),
        ("ddnet", {"blur": [[1.0], [0.5, 0.5]]}, "all equally long"),
        ("ddnet", {"blur": 35}, "too large for a border of 16"),
        ("ddnet", {"filter_size": 4}, "filter_size must be odd and positive, got 4"),
        ("ddnet", {"eps": 0.0}, "eps must be positive"),
        ("ifan", {"steps": 0}, "steps must be at least 1, got 0"),
        ("ifan", {"shared": True}, "shared"),
    ],
)
def test_impossible_arguments_are_named(network, argument, words):
    with pytest.raises(UserError, match=words):
        build_network(network, {**TINY[network], **argument})

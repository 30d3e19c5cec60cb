"""The sharpness dial: networks between two others."""

import math

import pytest
import torch

from model.errors import UserError
from model.interpolation import between
from model.networks import build_network
from model.weights import Card, load_network, save_weights
from tests.model.conftest import TINY


def network_file(path, seed, arguments=TINY):
    """A tiny U-Net whose batch-norm statistics have moved, as those of trained networks have."""
    torch.manual_seed(seed)
    network = build_network("unet", {**arguments, "output_gain": 0.2})
    for _ in range(seed):
        network(torch.rand(2, 1, 16, 16))
    save_weights(path, network, Card("unet", dict(arguments)))
    return path


@pytest.fixture
def soft(tmp_path):
    return network_file(tmp_path / "soft.safetensors", 1)


@pytest.fixture
def sharp(tmp_path):
    return network_file(tmp_path / "sharp.safetensors", 3)


def numbers(network):
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def test_ends_are_exact(soft, sharp):
    for sharpness, end in ((0, soft), (1, sharp)):
        expected = numbers(load_network(end)[0])
        found = numbers(between(soft, sharp, sharpness))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_middle_is_the_mean_and_changes_the_result(soft, sharp):
    ends = [load_network(path)[0].eval() for path in (soft, sharp)]
    middle = between(soft, sharp, 0.5).eval()
    one, two = map(numbers, ends)
    for name, tensor in numbers(middle).items():
        torch.testing.assert_close(tensor, (one[name] + two[name]) / 2)
    blurred = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        results = [network(blurred) for network in (*ends, middle)]
    assert not any(torch.equal(results[2], result) for result in results[:2])


@pytest.mark.parametrize("sharpness", [0.1, 0.3, 0.7])
def test_what_the_two_agree_on_is_kept_exactly(soft, sharpness):
    expected = numbers(load_network(soft)[0])
    found = numbers(between(soft, soft, sharpness))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_batch_norm_counters_are_left_alone(soft, sharp):
    found = between(soft, sharp, 0.5).state_dict()
    counters = [tensor for name, tensor in found.items() if name.endswith("num_batches_tracked")]
    assert counters
    assert all(counter.dtype == torch.int64 and counter == 3 for counter in counters)


@pytest.mark.parametrize("sharpness", [-0.1, 1.5, math.nan])
def test_sharpness_out_of_range_is_named(soft, sharp, sharpness):
    with pytest.raises(UserError, match=f"from 0 to 1, got {sharpness}"):
        between(soft, sharp, sharpness)


def test_two_different_networks_are_refused(soft, tmp_path):
    other = network_file(tmp_path / "other.safetensors", 2, {"widths": [4, 8], "depth": 2})
    with pytest.raises(UserError, match=r"of different networks, unet .*'depth': 1.* and unet .*'depth': 2"):
        between(soft, other, 0.5)

"""The networks that come with the program do what their cards say, where whoever has them can see it."""

import pytest
import torch

from model.card_metrics import card_metrics
from model.data.photographs import read_luma
from model.errors import UserError
from model.interpolation import between
from model.networks import parameter_count
from model.shipped import BOX, FOCUS, FOLDER, MAE, shipped
from model.weights import load_network, load_weights
from tests.photographs import data_folder, scikit_image_photograph

NETWORKS = (BOX.soft, BOX.sharp, FOCUS.soft, FOCUS.sharp)
# By which protocols each card has figures: on photographs that everybody has, on Kodak, and more.
PROTOCOLS = {
    BOX: ("scikit-image", "paper-kodak", "paper-bsds"),
    FOCUS: ("focus@scikit-image", "focus"),
}
MEASURED = [(name, dial) for dial in PROTOCOLS for name in (dial.soft, dial.sharp)]
# Processors round differently; a pixel in a few thousand then falls on another of 256 levels.
TOLERANCE = {"blurred_psnr": 1e-4, "psnr": 0.01, "ssim": 2e-4, "q": 2e-4, "lpips": 1e-3, "pictures": 0}


def assert_as_recorded(found: dict[str, float], recorded: dict[str, float]) -> None:
    # LPIPS is on the card wherever its weights were at hand; here they may not be.
    assert found.keys() | {"lpips"} == recorded.keys() | {"lpips"}
    for metric in found.keys() & recorded.keys():
        assert found[metric] == pytest.approx(recorded[metric], abs=TOLERANCE[metric]), metric


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_papers_network(name):
    network, _ = load_network(shipped(name))
    assert parameter_count(network) == 4_891_216


@pytest.mark.parametrize(("name", "dial"), MEASURED)
def test_the_card_holds_on_photographs_that_everybody_has(name, dial):
    torch.set_num_threads(2)
    protocol = PROTOCOLS[dial][0]
    recorded = load_weights(shipped(name))[1].metrics[protocol]
    found = card_metrics(shipped(name), [protocol])[protocol]
    assert_as_recorded(found, recorded)
    assert found["psnr"] - found["blurred_psnr"] > (4 if dial == BOX else 1)


@pytest.mark.parametrize(("name", "dial"), MEASURED)
def test_the_card_holds_on_kodak(name, dial):
    torch.set_num_threads(2)
    data = data_folder("kodak").parent
    lpips = data / "lpips_weights"
    protocol = PROTOCOLS[dial][1]
    recorded = load_weights(shipped(name))[1].metrics[protocol]
    found = card_metrics(shipped(name), [protocol], data, lpips if lpips.is_dir() else None)
    assert_as_recorded(found[protocol], recorded)


@pytest.mark.parametrize("dial", PROTOCOLS)
def test_the_sharp_one_has_the_higher_q(dial):
    soft, sharp = (load_weights(shipped(name))[1] for name in (dial.soft, dial.sharp))
    assert sharp.loss["weight"] > 0
    for protocol in PROTOCOLS[dial]:
        assert sharp.metrics[protocol]["q"] > soft.metrics[protocol]["q"]


@pytest.mark.parametrize("dial", PROTOCOLS)
def test_the_dial_lies_between_them(dial):
    network = between(shipped(dial.soft), shipped(dial.sharp), 0.5)
    ends = [load_network(shipped(name))[0].state_dict() for name in (dial.soft, dial.sharp)]
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            middle = (ends[0][name] + ends[1][name]) / 2
            torch.testing.assert_close(tensor, middle, rtol=1e-5, atol=1e-7)


def test_what_is_sharp_stays_so_and_the_box_network_would_not_leave_it():
    """A photograph in focus loses little, where the network for a box makes a caricature of it."""
    sharp = torch.from_numpy(read_luma(scikit_image_photograph("astronaut.png"))[:256, 128:384].copy())
    # Four squares of the size that the networks were trained on.
    sharp = sharp.unflatten(0, (2, 128)).unflatten(2, (2, 128)).transpose(1, 2).reshape(4, 1, 128, 128) / 255
    errors = {}
    for name in (BOX.soft, FOCUS.soft, FOCUS.sharp):
        network = load_network(shipped(name))[0].eval()
        with torch.no_grad():
            errors[name] = (network(sharp).clamp(0, 1) - sharp).square().mean().sqrt().item() * 255
    assert max(errors[FOCUS.soft], errors[FOCUS.sharp]) < 5 < errors[BOX.soft] / 2


def test_all_of_them_stay_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 25e6


def test_an_incomplete_checkout_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("model.shipped.FOLDER", tmp_path)
    with pytest.raises(UserError, match="take a whole checkout, or give weights of your own"):
        shipped(MAE)

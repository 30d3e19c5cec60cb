"""The networks that come with the program do what their cards say, where whoever has them can see it."""

import pytest
import torch

from model.card_metrics import SCIKIT_IMAGE, card_metrics
from model.errors import UserError
from model.interpolation import between
from model.networks import parameter_count
from model.shipped import FOLDER, MAE, MAE_Q, shipped
from model.weights import load_network, load_weights
from tests.photographs import data_folder

NETWORKS = (MAE, MAE_Q)
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


@pytest.mark.parametrize("name", NETWORKS)
def test_the_card_holds_on_photographs_that_everybody_has(name):
    torch.set_num_threads(2)
    recorded = load_weights(shipped(name))[1].metrics[SCIKIT_IMAGE]
    found = card_metrics(shipped(name), [SCIKIT_IMAGE])[SCIKIT_IMAGE]
    assert_as_recorded(found, recorded)
    assert found["psnr"] - found["blurred_psnr"] > 4


@pytest.mark.parametrize("name", NETWORKS)
def test_the_card_holds_on_kodak(name):
    torch.set_num_threads(2)
    data = data_folder("kodak").parent
    lpips = data / "lpips_weights"
    recorded = load_weights(shipped(name))[1].metrics["paper-kodak"]
    found = card_metrics(shipped(name), ["paper-kodak"], data, lpips if lpips.is_dir() else None)
    assert_as_recorded(found["paper-kodak"], recorded)


def test_the_recommended_one_has_the_higher_q():
    of = {name: load_weights(shipped(name))[1] for name in NETWORKS}
    assert of[MAE_Q].loss["weight"] > 0
    for protocol in (SCIKIT_IMAGE, "paper-kodak", "paper-bsds"):
        assert of[MAE_Q].metrics[protocol]["q"] > of[MAE].metrics[protocol]["q"]


def test_the_dial_lies_between_them():
    network = between(shipped(MAE), shipped(MAE_Q), 0.5)
    ends = [load_network(shipped(name))[0].state_dict() for name in NETWORKS]
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            middle = (ends[0][name] + ends[1][name]) / 2
            torch.testing.assert_close(tensor, middle, rtol=1e-5, atol=1e-7)


def test_all_of_them_stay_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 25e6


def test_an_incomplete_checkout_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("model.shipped.FOLDER", tmp_path)
    with pytest.raises(UserError, match="take a whole checkout, or give weights of your own"):
        shipped(MAE)

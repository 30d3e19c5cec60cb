"""Weights to give away."""

import pytest
import torch

from model.card_metrics import card_metrics
from model.errors import UserError
from model.networks import build_network
from model.pack import PackConfig, run
from model.shipped import FOLDER
from model.weights import load_network, load_weights, save_weights


def test_half_the_size_nearly_the_same_and_no_places(tiny_weights, tmp_path, capsys):
    network, card = build_network("dncnn"), load_weights(tiny_weights)[1]
    card.network, card.network_args = "dncnn", {}
    card.training["config"] = {"photographs": ["/home/me/photographs"], "out": "runs/x", "steps": 3}
    source, out = tmp_path / "whole.safetensors", tmp_path / "packed.safetensors"
    save_weights(source, network, card)
    run(PackConfig(weights=source, out=out, data="three photographs"))
    assert out.stat().st_size < 0.6 * source.stat().st_size
    assert f"info {out}" in capsys.readouterr().out
    packed, packed_card = load_network(out)
    assert packed_card.training["config"] == {"photographs": ["photographs"], "out": "x", "steps": 3}
    assert packed_card.training["data"] == "three photographs"
    blurred = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(packed.eval()(blurred), network.eval()(blurred), rtol=0, atol=2e-3)


def test_the_card_says_what_the_packed_weights_do(tiny_weights, tmp_path):
    out = tmp_path / "packed.safetensors"
    run(PackConfig(weights=tiny_weights, out=out, measure=["scikit-image"]))
    recorded = load_weights(out)[1].metrics["scikit-image"]
    assert recorded["pictures"] == 12
    again = card_metrics(out, ["scikit-image"])["scikit-image"]
    assert again == recorded
    with pytest.raises(UserError, match="no protocol is called 'paper-codak'"):
        run(PackConfig(weights=tiny_weights, out=tmp_path / "x.safetensors", measure=["paper-codak"]))
    assert not (tmp_path / "x.safetensors").exists()


def test_what_does_not_fit_into_float16_is_refused(tiny_weights, tmp_path):
    network, card = load_network(tiny_weights)
    name, parameter = next(iter(network.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[0] = 1e6
    save_weights(tmp_path / "x.safetensors", network, card)
    with pytest.raises(UserError, match=rf"{name} does not fit into float16 \(1e\+06\)"):
        run(PackConfig(weights=tmp_path / "x.safetensors", out=tmp_path / "y.safetensors"))
    assert not (tmp_path / "y.safetensors").exists()


def test_nothing_is_replaced_unasked(tiny_weights, tmp_path):
    for config, message in (
        (PackConfig(weights=tiny_weights, out=tiny_weights), "already there; --overwrite"),
        (PackConfig(weights=tiny_weights, out=tmp_path / "x.pth"), "must end in .safetensors"),
        (PackConfig(weights=tiny_weights), "give --weights"),
    ):
        with pytest.raises(UserError, match=message):
            run(config)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.safetensors")), ids=lambda path: path.stem)
def test_cards_of_shipped_weights_say_what_they_are_from(path):
    tensors, card = load_weights(path)
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}
    assert card.training["data"] and card.training["steps"] > 0
    assert not any("/" in str(value) for value in card.training["config"]["photographs"])
    assert card.metrics["validation_psnr"] > 0

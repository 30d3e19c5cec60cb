"""Weights to give away."""

import shutil

import pytest
import torch

from model import eight_bits
from model.card_metrics import card_metrics
from model.errors import UserError
from model.networks import build_network
from model.pack import PackConfig, run
from model.shipped import FOLDER
from model.weights import Card, load_network, load_weights, save_weights


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


def test_eight_bits_take_a_quarter_and_each_channel_has_its_own_scale(tiny_weights, tmp_path):
    network, card = build_network("dncnn", {"width": 64}), load_weights(tiny_weights)[1]
    card.network, card.network_args = "dncnn", {"width": 64}
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                # Channels of very different size, and one that does nothing.
                parameter *= torch.logspace(-3, 0, parameter.shape[0])[:, None, None, None]
                parameter[0] = 0
    source, out = tmp_path / "whole.safetensors", tmp_path / "packed.safetensors"
    save_weights(source, network, card)
    run(PackConfig(weights=source, out=out, bits=8))
    assert out.stat().st_size < 0.3 * source.stat().st_size
    packed, packed_card = load_network(out)
    assert packed_card.training["bits"] == 8
    for name, tensor in network.state_dict().items():
        found = packed.state_dict()[name]
        if tensor.ndim > 1 and tensor.numel() >= 4096:
            step = tensor.flatten(1).abs().amax(1) / 127
            assert ((found - tensor).abs().flatten(1).amax(1) <= 0.51 * step).all()
    # What is packed can be packed again, and nothing more is lost.
    again = tmp_path / "again.safetensors"
    run(PackConfig(weights=out, out=again, bits=8))
    for name, tensor in load_weights(out)[0].items():
        torch.testing.assert_close(load_weights(again)[0][name], tensor, rtol=1e-3, atol=0)


def test_only_what_differs_from_the_base(tmp_path):
    """A part was fine-tuned: the rest is taken from the base, which must lie beside it and be the same."""
    network, card = build_network("dncnn"), Card("dncnn")
    base, whole, part = (tmp_path / f"{name}.safetensors" for name in ("base", "whole", "part"))
    save_weights(tmp_path / "run.safetensors", network, card)
    run(PackConfig(weights=tmp_path / "run.safetensors", out=base, bits=8))
    tuned, _ = load_network(base)
    last = list(tuned.state_dict())[-1]
    with torch.no_grad():
        tuned.state_dict()[last].add_(0.25)
    save_weights(whole, tuned, card)
    run(PackConfig(weights=whole, out=part, base=base))
    assert part.stat().st_size < 0.2 * base.stat().st_size
    found, found_card = load_weights(part)
    assert found_card.base["file"] == "base.safetensors"
    for name, tensor in tuned.state_dict().items():
        torch.testing.assert_close(
            found[name].to(tensor.dtype), tensor, rtol=1e-3, atol=1e-3 * (name == last)
        )
        assert name == last or torch.equal(found[name].to(tensor.dtype), tensor)
    load_network(part)
    # Packed again without a base it is whole, wherever it lies.
    alone = tmp_path / "alone" / "alone.safetensors"
    run(PackConfig(weights=part, out=alone))
    assert load_weights(alone)[0].keys() == network.state_dict().keys() and not load_weights(alone)[1].base
    run(PackConfig(weights=whole, out=tmp_path / "measured.safetensors", base=base, measure=["scikit-image"]))
    measured = load_weights(tmp_path / "measured.safetensors")[1].metrics["scikit-image"]
    assert measured == card_metrics(part, ["scikit-image"])["scikit-image"]

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(part, elsewhere)
    with pytest.raises(
        UserError, match=r"holds only what differs from base\.safetensors, which must lie beside"
    ):
        load_weights(elsewhere / "part.safetensors")
    shutil.copy(whole, elsewhere / "base.safetensors")
    with pytest.raises(
        UserError, match=r"was made from another base\.safetensors than the one that lies beside"
    ):
        load_weights(elsewhere / "part.safetensors")
    for changes, message in (
        ({"base": whole, "out": elsewhere / "x.safetensors"}, "must lie in the folder of --out"),
        ({"base": base, "out": base, "overwrite": True}, "would replace --base, which it needs"),
        ({"base": part, "out": tmp_path / "x.safetensors"}, "differs from base.safetensors; give that one"),
        (
            {"base": tmp_path / "other.safetensors", "out": tmp_path / "x.safetensors"},
            "is of another network",
        ),
        ({"base": tmp_path / "far.safetensors", "out": tmp_path / "x.safetensors"}, "nothing in .* is as in"),
    ):
        save_weights(tmp_path / "other.safetensors", build_network("dncnn", {"width": 8}), card)
        distant = build_network("dncnn")
        with torch.no_grad():
            for tensor in distant.state_dict().values():
                tensor += 1
        save_weights(tmp_path / "far.safetensors", distant, card)
        with pytest.raises(UserError, match=message):
            run(PackConfig(weights=whole, **changes))


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


def test_names_of_scales_are_not_taken_for_others():
    names = {"a": torch.ones(64, 64), "b": torch.ones(63, 65), "b.scale": torch.ones(3)}
    packed = eight_bits.rounded(names)
    assert packed.keys() == {"a", "a.scale", "b", "b.scale"}
    assert packed["a"].dtype == torch.int8 and torch.equal(packed["b"], names["b"])  # too small
    assert eight_bits.restored(packed).keys() == names.keys()
    with pytest.raises(ValueError, match=r"no scale can be kept for a: there is a tensor a\.scale"):
        eight_bits.rounded({"a": torch.ones(64, 64), "a.scale": torch.ones(2)})


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
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    # Eight bits are whole numbers with their scales in the file, and read as float32: those of a base too.
    small = card.training.get("bits") == 8 or card.base
    assert kinds == ({torch.float16, torch.float32} if small else {torch.float16})
    assert card.training["data"] and card.training["steps"] > 0
    assert not any("/" in str(value) for value in card.training["config"]["photographs"])
    assert card.metrics["validation_psnr"] > 0

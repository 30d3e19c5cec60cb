"""Weights on disk: what goes in comes out, and nothing is ever half written."""

import pytest
import torch
from safetensors.torch import save_file

from model.errors import UserError
from model.networks import build_network
from model.weights import Card, load_network, replace_file, save_weights

TINY = {"widths": [4, 8], "depth": 1}


def test_round_trip_keeps_tensors_and_card(tmp_path):
    network = build_network("unet", TINY).to(memory_format=torch.channels_last)
    # Moves the running statistics, which must be kept too.
    network(torch.rand(2, 1, 16, 16))
    card = Card(
        network="unet",
        network_args=TINY,
        stage="finetune",
        loss={"name": "mae - w q", "weight": 0.01, "definition": "zhu2010"},
        metrics={"train_q": 0.125},
        training={"steps": 3, "config": {"photographs": ["a", "ü"]}},
    )
    save_weights(tmp_path / "new" / "weights.safetensors", network, card)
    loaded, read = load_network(tmp_path / "new" / "weights.safetensors")
    assert read == card
    assert loaded.state_dict().keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    blurred = torch.rand(1, 1, 20, 30)
    same_layout = loaded.to(memory_format=torch.channels_last)
    assert torch.equal(same_layout.eval()(blurred), network.eval()(blurred))


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    replace_file(path, b"good")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.weights.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        replace_file(path, b"bad")
    assert path.read_bytes() == b"good"
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


def test_missing_damaged_and_foreign_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no weights at .*nowhere\.safetensors"):
        load_network(tmp_path / "nowhere.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 50)
    with pytest.raises(UserError, match="not a safetensors file"):
        load_network(tmp_path / "damaged.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="not written by this program"):
        load_network(tmp_path / "foreign.safetensors")


def test_weights_that_do_not_fit_their_card_are_refused(tmp_path):
    save_weights(tmp_path / "w.safetensors", build_network("unet", TINY), Card("unet", {"depth": 1}))
    with pytest.raises(UserError, match="do not fit network 'unet'"):
        load_network(tmp_path / "w.safetensors")

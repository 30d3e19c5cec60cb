"""Networks of other projects: what spandrel builds restores here as there; what does not fit is named."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model.errors import UserError
from model.networks.foreign import load_foreign
from model.torchvision_import import import_torchvision


@pytest.fixture
def spandrel():
    import_torchvision()
    return pytest.importorskip("spandrel")


def denoiser(channels: int) -> nn.Module:
    """DnCNN with few channels, by spandrel's own definition."""
    from spandrel.architectures.DnCNN.__arch.network_dncnn import DnCNN

    torch.manual_seed(2)
    return DnCNN(in_nc=channels, out_nc=channels, nc=8, nb=9, act_mode="R").eval()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_network_restores_as_its_own_definition(spandrel, channels, kind, tmp_path, photograph):
    network = denoiser(channels)
    path = tmp_path / f"dncnn.{kind}"
    if kind == "pth":
        torch.save({"params": network.state_dict()}, path)
    else:
        save_file(network.state_dict(), path)
    loaded = load_foreign(path)
    assert (loaded.channels, loaded.name, loaded.knows_blur) == (channels, "DnCNN", False)
    images = torch.cat([photograph(channels, 23, 30), photograph(channels, 23, 30).flip(3)])
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), network(images).clamp(0, 1))
    with pytest.raises(UserError, match=f"DnCNN takes N x {channels} x H x W"):
        loaded(torch.rand(1, 4 - channels, 8, 8))


def test_networks_that_do_not_restore_are_refused(spandrel, tmp_path):
    from spandrel.architectures.Compact import Compact

    torch.save(Compact(num_feat=4, num_conv=1, upscale=2).state_dict(), tmp_path / "enlarge.pth")
    with pytest.raises(UserError, match="which enlarges 2 times"):
        load_foreign(tmp_path / "enlarge.pth")
    torch.save({"a.weight": torch.ones(2), "b": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"recognises no network in .*other\.pth"):
        load_foreign(tmp_path / "other.pth")


def test_files_that_are_something_else_are_named(spandrel, tmp_path):
    with pytest.raises(UserError, match=r"there are no weights at .*nowhere\.pth"):
        load_foreign(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(UserError, match="neither a checkpoint of torch nor safetensors"):
        load_foreign(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds list instead of named tensors"):
        load_foreign(tmp_path / "list.pth")


def test_without_spandrel_the_way_to_get_it_is_said(tmp_path, monkeypatch):
    # None in the table of modules makes an import fail as if nothing were installed.
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UserError, match="pip install spandrel"):
        load_foreign(tmp_path / "any.pth")

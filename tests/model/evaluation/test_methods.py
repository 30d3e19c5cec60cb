"""Everything that restores, behind one face and by name."""

import numpy as np
import pytest
import torch
from PIL import Image

from model.classical.al import ApproximateLandweber
from model.classical.method import Knows
from model.errors import UserError
from model.evaluation.methods import (
    ClassicalMethod,
    FolderMethod,
    Identity,
    NetworkMethod,
    Setting,
    build_method,
    method_from_weights,
    needs_pairs,
)
from model.evaluation.protocol import Protocol
from model.networks import build_network
from model.torchvision_import import import_torchvision
from model.weights import Card, save_weights
from tests.model.networks.conftest import TINY


def test_classical_methods_are_given_float64_and_the_blur(pairs, setting):
    method = build_method("al:iterations=3", setting)
    blurred = torch.from_numpy(pairs[0].observed)[None, None]
    assert (method.name, method.knows) == ("al:iterations=3", Knows.OPERATOR)
    expected = ApproximateLandweber(3)(blurred, Protocol().operator())
    assert torch.equal(method.restore(blurred), expected)
    # What comes as float32 is computed in float64 all the same.
    assert method.restore(blurred.float()).dtype == torch.float64


def test_rows_can_be_named(setting):
    assert build_method("mLM=mlm:iterations=2", setting).name == "mLM"
    assert build_method("mlm:iterations=2,damping=50", setting).name == "mlm:iterations=2,damping=50"
    assert build_method("w=0.01=mlm:iterations=2", setting).name == "w=0.01"
    assert isinstance(build_method("as it came=blurred", setting), Identity)


def test_weights_are_found_under_their_network_s_name(tiny_weights, setting, pairs):
    blurred = torch.from_numpy(pairs[0].observed)[None, None]
    expected = method_from_weights(tiny_weights, setting.device).restore(blurred)
    for text in (f"weights:{tiny_weights}", f"unet:{tiny_weights}", f"mine=unet:{tiny_weights}"):
        method = build_method(text, setting)
        assert method.name == ("mine" if text.startswith("mine") else "tiny")
        assert torch.equal(method.restore(blurred), expected)


def test_a_network_is_not_taken_for_another(tiny_weights, setting):
    with pytest.raises(UserError, match="holds no xydeblur; write weights:"):
        build_method(f"xydeblur:{tiny_weights}", setting)


def test_a_network_that_was_told_another_blur_is_refused(tmp_path, setting):
    path, arguments = tmp_path / "ddnet.safetensors", {**TINY["ddnet"], "blur": 5}
    save_weights(path, build_network("ddnet", arguments), Card("ddnet", arguments))
    assert build_method(f"ddnet:{path}", setting).knows == Knows.KERNEL
    other = Setting(setting.device, Protocol(blur="disc:2.5").operator())
    with pytest.raises(UserError, match="ddnet was told another blur than that of the pictures"):
        build_method(f"ddnet:{path}", other)
    # What is known of the blur of photographed pairs is what the network was told.
    assert build_method(f"ddnet:{path}", Setting(setting.device, None)).knows == Knows.KERNEL


def test_only_folders_of_results_must_know_the_pairs():
    assert needs_pairs("x=folder:results,suffix=_x")
    assert not needs_pairs("mlm:iterations=3")
    assert not needs_pairs("unet:folder")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mlmm", r"no method is called 'mlmm'; did you mean 'mlm'\?"),
        ("weigths:x", r"no method is called 'weigths'; did you mean 'weights'\?"),
        ("mlm:iteration=3", r"mlm has no parameter 'iteration'; did you mean 'iterations'\?"),
        ("red-fp:denoiser=tnrd", "red-fp: no denoiser is called 'tnrd'"),
        ("weights", "weights needs a file: weights:PATH"),
        ("folder:", "folder needs a folder: folder:PATH"),
        ("weights:nowhere.safetensors", "there are no weights at nowhere.safetensors"),
        ("folder:nowhere", "nowhere: nowhere is not a folder"),
        ("folder:.,sufix=x", "folder has no parameter 'sufix'; known: suffix"),
    ],
)
def test_mistakes_are_one_line(text, message, setting):
    with pytest.raises(UserError, match=message):
        build_method(text, setting)


def test_methods_that_need_an_unknown_blur_are_refused():
    setting = Setting(torch.device("cpu"), None)
    for name in ("al", "red-fp", "wiener"):
        with pytest.raises(UserError, match=f"{name} must know the blur"):
            build_method(name, setting)
    assert build_method("median", setting).knows == Knows.NOTHING


def test_devices_without_float64_are_refused():
    with pytest.raises(UserError, match="give --device cpu"):
        ClassicalMethod("al", ApproximateLandweber(), Protocol().operator(), torch.device("mps"))


def test_a_folder_of_results_has_the_face_of_a_method(pairs, setting, tmp_path):
    for pair in pairs[:2]:
        Image.fromarray(255 - pair.sharp).save(tmp_path / f"{pair.name}_x.png")
    method = build_method(f"folder:{tmp_path},suffix=_x", setting)
    assert method.knows == Knows.ANSWER
    both = torch.from_numpy(np.stack([pair.observed for pair in pairs[:2]]))[:, None]
    for pair, restored in zip(pairs, method.restore(both)[:, 0], strict=False):
        assert np.array_equal((restored * 255).round().numpy(), 255 - pair.sharp)
    with pytest.raises(UserError, match="holds no result for c"):
        method.restore(torch.from_numpy(pairs[2].observed)[None, None])


def test_a_folder_without_results_names_what_it_looked_for(pairs, tmp_path):
    with pytest.raises(UserError, match=r"holds none of 3 pictures, e\.g\. a_y\.png"):
        FolderMethod("x", tmp_path, "_y", pairs)


def test_results_of_another_size_or_damaged_are_named(pairs, tmp_path):
    Image.new("L", (32, 64)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    method = FolderMethod("x", tmp_path, "", pairs)
    with pytest.raises(UserError, match="differ in size: 32 x 64 and 64 x 64"):
        method.restore(torch.from_numpy(pairs[0].observed)[None, None])
    with pytest.raises(UserError, match=r"b\.png: not a picture"):
        method.restore(torch.from_numpy(pairs[1].observed)[None, None])


class Halves(torch.nn.Module):
    """A network for RGB that knows the blur, and treats each channel differently."""

    knows_blur, channels = True, 3

    def forward(self, x):
        assert x.shape[1] == 3
        assert torch.equal(x[:, 0], x[:, 2])
        return x * torch.tensor([0.5, 1.0, 0.0])[:, None, None]


def test_a_network_for_rgb_sees_three_channels_and_gives_back_luma(pairs):
    method = NetworkMethod("halves", Halves(), torch.device("cpu"))
    blurred = torch.from_numpy(pairs[0].observed)[None, None]
    assert method.knows == Knows.KERNEL
    expected = (0.299 * 0.5 + 0.587) * blurred.float()
    assert torch.allclose(method.restore(blurred), expected, atol=1e-6)


def test_keys_change_with_whatever_changes_the_result(tiny_weights, setting, tmp_path):
    other = tmp_path / "tiny.safetensors"
    content = tiny_weights.read_bytes()
    other.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    circular = Setting(setting.device, Protocol(border="circular").operator())
    keys = [
        build_method(f"weights:{tiny_weights}", setting).key,
        build_method(f"weights:{other}", setting).key,
        build_method("al", setting).key,
        build_method("al:iterations=249", setting).key,
        build_method("al", circular).key,
        build_method("red-fp", setting).key,
        build_method(f"red-fp:denoiser={tiny_weights}", setting).key,
        build_method(f"red-fp:denoiser={other}", setting).key,
    ]
    assert len(set(keys)) == len(keys)
    assert build_method("x=al", setting).key == build_method("al:iterations=250", setting).key
    # A blind method does not depend on the blur.
    assert build_method("median", setting).key == build_method("median", circular).key


def test_networks_of_other_projects_are_methods(tmp_path, setting, pairs):
    import_torchvision()
    pytest.importorskip("spandrel")
    from spandrel.architectures.DnCNN.__arch.network_dncnn import DnCNN

    network = DnCNN(in_nc=1, out_nc=1, nc=8, nb=9, act_mode="R").eval()
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    method = build_method(f"spandrel:{tmp_path / 'theirs.pth'}", setting)
    blurred = torch.from_numpy(pairs[0].observed)[None, None]
    assert (method.name, method.knows) == ("theirs", Knows.NOTHING)
    with torch.no_grad():
        expected = network(blurred.float()).clamp(0, 1)
    torch.testing.assert_close(method.restore(blurred), expected)


@pytest.mark.parametrize("text", ["dncnn:weights={}", "red-fp:denoiser={}"])
def test_results_of_rewritten_weights_are_not_taken_for_the_old(text, tmp_path, setting):
    path = tmp_path / "denoiser.safetensors"
    keys = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_weights(path, build_network("dncnn", TINY["dncnn"]), Card("dncnn", TINY["dncnn"]))
        keys.append(build_method(text.format(path), setting).key)
    assert keys[0] != keys[1]


def test_results_with_the_shipped_denoiser_depend_on_its_weights(setting, monkeypatch, tmp_path):
    before = build_method("red-fp:denoiser=dncnn", setting).key
    other = tmp_path / "other.safetensors"
    save_weights(other, build_network("dncnn", TINY["dncnn"]), Card("dncnn", TINY["dncnn"]))
    monkeypatch.setattr("model.classical.denoisers.Network.files", (other,))
    assert build_method("red-fp:denoiser=dncnn", setting).key != before

"""The authors' own weights through the command line: every command that takes weights takes them."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import model.networks as networks_module
import model.training.start as start_module
from model.__main__ import COMMANDS
from model.command_line import main
from model.data.degradation import Degradation
from model.data.sources import load_images
from model.errors import UserError
from model.networks import NETWORKS, build_network
from model.networks.image import UnfitImage
from model.networks.luma import show_luma, take_luma
from model.training.trainer import train
from model.training.validation import Validation
from model.weights import Card, load_network, load_weights, save_weights
from tests.model.networks.conftest import TINY, photograph  # noqa: F401 - a fixture
from tests.model.networks.test_published import published, write
from tests.model.test_trainer import finetuning

SUFFIXES = {"xydeblur": "pkl", "restormer": "pth", "ifan": "pytorch"}


@pytest.fixture
def file_of(tmp_path, photograph):  # noqa: F811
    """Writes a small checkpoint in the format of a network's authors."""

    def make(name: str, channels: int = 3):
        p, _ = published(name, photograph(channels, 16, 16))
        return write(tmp_path / f"authors.{SUFFIXES[name]}", name, p.tensors)

    return make


@pytest.mark.parametrize("name", SUFFIXES)
def test_every_command_takes_them(name, file_of, photographs, run_model, tmp_path):
    weights = file_of(name)
    described = run_model("info", weights)
    assert described.returncode == 0, described.stderr
    assert f"network   {name} channels=3" in described.stdout
    assert "stage     published" in described.stdout
    done = run_model("deblur", photographs / "a.png", "--weights", weights, "-o", tmp_path / "restored")
    assert done.returncode == 0, done.stderr
    pictures = [photographs / "a.png", tmp_path / "restored" / "a_deblurred.png"]
    original, restored = (np.asarray(Image.open(path).convert("RGB")) for path in pictures)
    assert original.shape == restored.shape and np.any(original != restored)
    words = ["--batch", 2, "--crop", 32, "--steps", 2, "--trackers", "none", "--device", "cpu"]
    done = run_model("finetune", photographs, "--weights", weights, *words, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    start, _ = load_network(weights)
    network, card = load_network(tmp_path / "run" / "weights.safetensors")
    assert (card.network, card.stage, card.network_args["channels"]) == (name, "finetune", 3)
    assert card.training["config"]["network"] == name
    moved = [
        not torch.equal(a, b)
        for a, b in zip(start.state_dict().values(), network.state_dict().values(), strict=True)
    ]
    assert any(moved)


def test_evaluation_takes_them(file_of, photographs, run_model, tmp_path):
    weights = file_of("xydeblur")
    done = run_model("evaluate", photographs, "--weights", weights, "--crop", 32, "-o", tmp_path / "evaluate")
    assert done.returncode == 0, done.stderr
    assert "authors" in done.stdout


def test_format_is_told_by_content(file_of, tmp_path, tiny_weights):
    """Names mean nothing: a checkpoint called .safetensors, and weights of ours called .pth."""
    renamed = shutil.copy(file_of("restormer"), tmp_path / "odd.safetensors")
    assert load_network(renamed)[1].network == "restormer"
    assert load_network(shutil.copy(tiny_weights, tmp_path / "ours.pth"))[1].network == "unet"


@pytest.mark.parametrize("length", [0x80, 0x180])
def test_safetensors_are_not_taken_for_a_pickle(length, tmp_path):
    """The length of their header comes first, and may begin as a pickle does."""
    path = tmp_path / "w.safetensors"
    network = build_network("unet", {"widths": [1, 1], "depth": 1})
    save_weights(path, network, Card("unet", {"widths": [1, 1], "depth": 1}))
    content = path.read_bytes()
    old = int.from_bytes(content[:8], "little")
    # Spaces behind the header are allowed.
    new = old + (length - old) % 256
    path.write_bytes(
        new.to_bytes(8, "little") + content[8 : 8 + old] + b" " * (new - old) + content[8 + old :]
    )
    assert path.read_bytes()[0] == 0x80
    assert load_network(path)[1].network == "unet"


@pytest.mark.parametrize("given", [["--network", "unet"], ["--network", "ifan"]])
def test_another_network_is_refused_in_one_line(given, file_of, photographs, run_model):
    words = ["--crop", 32, "--trackers", "none", *given]
    done = run_model("finetune", photographs, "--weights", file_of("restormer"), *words)
    assert done.returncode == 2
    assert f"holds weights of network 'restormer', not '{given[1]}'; leave --network away" in done.stderr
    assert done.stderr.count("\n") == 1


def test_other_channels_are_refused_in_one_line(tmp_path, photographs, photograph, run_model):  # noqa: F811
    """Six channels are two pictures at once."""
    p, _ = published("restormer", photograph(3, 16, 16))
    p.tensors["patch_embed.proj.weight"] = torch.zeros(8, 6, 3, 3)
    weights = write(tmp_path / "dual.pth", "restormer", p.tensors)
    for words in (["info", weights], ["deblur", photographs / "a.png", "--weights", weights]):
        done = run_model(*words)
        assert done.returncode == 2
        assert "channels must be 1 for luma or 3 for RGB, got 6" in done.stderr
        assert done.stderr.count("\n") == 1


def test_arguments_that_are_not_the_weights_are_refused(file_of, config):
    with pytest.raises(UserError, match=r"was made with --network_args .*; leave --network_args away"):
        train(finetuning(config, file_of("xydeblur"), network="", network_args={"channels": 1}))


def test_luma_through_rgb_and_back():
    luma = torch.rand(2, 1, 5, 6)
    shown = show_luma(luma, 3)
    assert shown.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(shown[:, [channel]], luma) for channel in range(3))
    torch.testing.assert_close(take_luma(shown), luma)
    assert take_luma(luma) is luma
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 1
    torch.testing.assert_close(take_luma(red), torch.full((1, 1, 2, 2), 0.299))


def test_rgb_network_is_trained_and_validated_on_luma(config, photographs):
    """The identity of three channels restores as well as that of one, and learning changes it."""
    config = dataclasses.replace(
        config,
        network="xydeblur",
        network_args={"channels": 3, "width": 4, "blocks": 1, "output_gain": 0.0},
        validation=[photographs / "a.png"],
        lr=1e-3,
    )
    still = train(dataclasses.replace(config, lr=1e-30, out=config.out / "still"))
    assert still.validation == still.before
    learnt = train(dataclasses.replace(config, out=config.out / "learnt"))
    network, card = load_network(learnt.weights)
    assert card.network_args["channels"] == 3 and network.channels == 3
    images = load_images([photographs / "a.png"], 32)
    again = Validation(images, 32, Degradation("box:5"), torch.device("cpu"), channels=3)
    assert again(network.eval())[0] == learnt.validation != still.validation


class Half(nn.Module):
    def forward(self, image):
        return image[..., ::2]


class Two(nn.Module):
    def forward(self, image):
        return image, image


class Large(nn.Module):
    def forward(self, image):
        if image.shape[-1] < 64:
            raise UnfitImage("pictures must have at least 64 pixels")
        return image


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Half, r"network 'odd' gives back \(1, 1, 32, 16\) for a picture of \(1, 1, 32, 32\)"),
        (Two, "network 'odd' gives back tuple for a picture"),
        (Large, "'odd' cannot take crops of 32 x 32: pictures must have at least 64 pixels; another --crop"),
    ],
)
def test_network_without_an_image_output_or_below_its_size_is_refused(config, network, message, monkeypatch):
    monkeypatch.setitem(networks_module.NETWORKS, "odd", network)
    for loss in ("", "l1+0.01*q"):
        with pytest.raises(UserError, match=message):
            train(dataclasses.replace(config, network="odd", network_args={}, loss=loss))
    assert not config.out.exists()


def test_the_look_at_the_output_changes_nothing(config):
    """A network keeps its mode and its batch-norm statistics."""
    network = build_network("unet", config.network_args).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert start_module._restoring(network, config).training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_picture_below_the_size_of_a_network_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(networks_module.NETWORKS, "odd", Large)
    save_weights(tmp_path / "w.safetensors", Large(), Card("odd"))
    Image.new("L", (50, 70), 90).save(tmp_path / "small.png")
    assert main(COMMANDS, ["deblur", str(tmp_path), "--weights", str(tmp_path / "w.safetensors")]) == 2
    error = capsys.readouterr().err
    assert "small.png: pictures must have at least 64 pixels" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_a_picture_of_one_pixel_is_not_too_small(name):
    """No network of this project has a minimum: padding is inside."""
    small = {"unet": {"widths": [2, 4], "depth": 1}, **TINY}.get(name, {})
    with torch.no_grad():
        assert build_network(name, small).eval()(torch.rand(1, 1, 1, 1)).shape == (1, 1, 1, 1)


def test_network_of_finetune_may_be_named(config):
    first = train(config)
    assert load_weights(train(finetuning(config, first.weights, network="unet")).weights)[1].network == "unet"
    with pytest.raises(UserError, match="holds weights of network 'unet', not 'ifan'"):
        train(finetuning(config, first.weights, network="ifan", overwrite=True))

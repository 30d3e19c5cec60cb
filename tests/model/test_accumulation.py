"""A batch in parts: the same gradient in less memory; and what is said where the memory does not suffice."""

import dataclasses

import pytest
import torch

from model.__main__ import COMMANDS
from model.command_line import main
from model.errors import UserError
from model.networks.unet import UNet
from model.training.engine import choose_compile
from model.training.step import Stepper
from model.training.trainer import train
from model.weights import load_weights

FIGURES = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. "
    "GPU 0 has a total capacity of 7.79 GiB of which 1.20 GiB is free"
)
# As torch writes it, shortened at the end.
CUDA = f"{FIGURES}. Including non-PyTorch memory, this process has 6.59 GiB memory in use. Of the allocated"


@pytest.fixture
def whole(config):
    """Statistics of a batch are those of a part; frozen, the parts see nothing different."""
    return dataclasses.replace(
        config,
        loss="l1+0.01*q",
        freeze_batch_norm=True,
        batch=6,
        lr=1e-2,
        ema=0.5,
        holdout=1,
        precision="float32",
        out=config.out / "whole",
    )


def test_a_batch_in_parts_gives_the_same_weights(whole, config):
    runs = [
        train(dataclasses.replace(whole, accumulate=parts, out=config.out / str(parts)))
        for parts in (1, 2, 6)
    ]
    first, *others = (load_weights(one.weights)[0] for one in runs)
    for other in others:
        for name, tensor in first.items():
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-5)
    # Other crops lead elsewhere: the bound can be missed.
    strange = load_weights(train(dataclasses.replace(whole, seed=1, out=config.out / "strange")).weights)[0]
    assert max(float((strange[name] - first[name]).abs().max()) for name in first) > 1e-3
    for run in runs[1:]:
        assert run.terms == pytest.approx(runs[0].terms, rel=1e-4)


def test_no_more_than_a_part_goes_through_the_network_at_a_time(config, monkeypatch):
    """In validation and where statistics are measured, neither."""
    seen = []
    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda self, x: seen.append(len(x)) or forward(self, x))
    train(dataclasses.replace(config, batch=6, accumulate=3, holdout=1, steps=2))
    assert set(seen) == {1, 2}  # a single photograph is held out
    assert seen.count(2) == 2 * 3 + 2 * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulate": 0}, "--accumulate must be positive, got 0"),
        (
            {"batch": 6, "accumulate": 4},
            "--accumulate 4 does not divide --batch 6 into equal parts",
        ),
        ({"accumulate": 2, "crop": 16}, "a crop at a time .* needs --crop above 16, got 16"),
    ],
)
def test_impossible_parts_are_named(config, change, message):
    with pytest.raises(UserError, match=message):
        train(dataclasses.replace(config, **change))


def test_gradients_are_not_added_up_in_the_memory_of_a_graph():
    gpu = torch.device("cuda")
    assert choose_compile("auto", gpu, 1) == "reduce-overhead"
    assert choose_compile("auto", gpu, 1, accumulate=2) == "default"
    with pytest.raises(UserError, match="with --accumulate 2 give default"):
        choose_compile("max-autotune", gpu, 1, accumulate=2)
    # There are none on a CPU.
    assert choose_compile("reduce-overhead", torch.device("cpu"), 1, accumulate=2) == "reduce-overhead"


@pytest.mark.parametrize(
    ("batch", "parts", "advice"),
    [
        (4, 1, "give --accumulate 2, the same batch in as many parts, or less than --batch 4 or --crop 32"),
        (9, 3, "give --accumulate 9, the same batch in as many parts, or less than --batch 9 or --crop 32"),
        (4, 4, "give less than --batch 4 or --crop 32"),
    ],
)
def test_too_little_memory_to_train(config, monkeypatch, batch, parts, advice):
    def step(*_):
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(Stepper, "__call__", step)
    with pytest.raises(UserError) as error:
        train(dataclasses.replace(config, batch=batch, accumulate=parts))
    assert str(error.value) == f"the GPU's memory does not suffice: {advice}. {FIGURES}"


def test_too_little_memory_to_restore(photographs, tiny_weights, tmp_path, monkeypatch, capsys):
    def forward(*_):
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(UNet, "forward", forward)
    words = [str(photographs / "a.png"), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
    assert main(COMMANDS, ["deblur", *words]) == 2
    said = capsys.readouterr().err
    assert f"does not suffice: give a smaller --tile, or --device cpu. {FIGURES}\n" in said

"""A batch in parts: the same gradient in less memory; and what is said where the memory does not suffice."""

import csv
import dataclasses
import re

import pytest
import torch
import yaml

import model.training.trainer as trainer_module
from model.__main__ import COMMANDS
from model.command_line import main
from model.errors import UserError, memory_error
from model.networks.unet import UNet
from model.training.command import run
from model.training.engine import choose_compile
from model.training.step import Stepper
from model.training.trainer import train
from model.weights import load_weights
from tests.model.test_trainer import StopAfter

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


def log(outcome) -> list[dict[str, float]]:
    with (outcome.weights.parent / "log.csv").open() as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def test_a_batch_in_parts_gives_the_same_weights(whole, config):
    outcomes = [
        train(dataclasses.replace(whole, accumulate=parts, out=config.out / str(parts)))
        for parts in (1, 2, 6)
    ]
    first, *others = (load_weights(one.weights)[0] for one in outcomes)
    for other in others:
        for name, tensor in first.items():
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-5)
    # Other crops lead elsewhere: the bound can be missed.
    strange = load_weights(train(dataclasses.replace(whole, seed=1, out=config.out / "strange")).weights)[0]
    assert max(float((strange[name] - first[name]).abs().max()) for name in first) > 1e-3
    # The length of the gradient shows what AdamW does not: its scale.
    for outcome in outcomes[1:]:
        for row, expected in zip(log(outcome), log(outcomes[0]), strict=True):
            for name in ("l1", "q", "loss", "grad_norm"):
                assert row[name] == pytest.approx(expected[name], rel=1e-4)


def test_the_environment_does_not_change_the_number_of_parts(whole, monkeypatch):
    expected = log(train(whole))
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "3")
    found = log(train(dataclasses.replace(whole, overwrite=True)))
    assert [row["grad_norm"] for row in found] == [row["grad_norm"] for row in expected]


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
    with pytest.raises(UserError, match="give --compile default with --accumulate 2"):
        choose_compile("max-autotune", gpu, 1, accumulate=2)
    # There are none on a CPU.
    assert choose_compile("reduce-overhead", torch.device("cpu"), 1, accumulate=2) == "reduce-overhead"


def out_of_memory(*_):
    raise torch.OutOfMemoryError(CUDA)


@pytest.mark.parametrize(
    ("batch", "parts", "advice"),
    [
        (4, 1, "give --accumulate 2, the same batch in as many parts, or less than --batch 4 or --crop 32"),
        (9, 3, "give --accumulate 9, the same batch in as many parts, or less than --batch 9 or --crop 32"),
        (4, 4, "give less than --batch 4 or --crop 32"),
    ],
)
def test_too_little_memory_to_train(config, monkeypatch, batch, parts, advice):
    monkeypatch.setattr(Stepper, "__call__", out_of_memory)
    for memory, more in (
        ("auto", ", or leave the photographs on the host by --memory stream"),
        ("stream", ""),
    ):
        with pytest.raises(UserError) as error:
            run(dataclasses.replace(config, batch=batch, accumulate=parts, memory=memory, overwrite=True))
        assert str(error.value) == f"the GPU's memory does not suffice: {advice}{more}. {FIGURES}"


def test_the_file_whose_options_are_to_be_changed_is_named(config, tmp_path, monkeypatch):
    second = tmp_path / "second.yaml"
    second.write_text(yaml.safe_dump({"out": str(tmp_path / "second"), "steps": 2, "batch": 2, "crop": 32}))
    step = Stepper.__call__
    steps_of_the_first = iter([step] * config.steps)
    monkeypatch.setattr(
        Stepper, "__call__", lambda self, *one: next(steps_of_the_first, out_of_memory)(self, *one)
    )
    with pytest.raises(UserError, match=re.escape(f"by --memory stream, in {second}. CUDA")):
        run(dataclasses.replace(config, then=second))
    with pytest.raises(UserError, match=re.escape(f"by --memory stream, in {second}. CUDA")):
        run(dataclasses.replace(config, then=second, resume=True))
    # What was begun and goes on has the options that it was begun with.
    monkeypatch.setattr(Stepper, "__call__", out_of_memory)
    begun = dataclasses.replace(config, out=tmp_path / "begun", save_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "__call__", step)
        patch.setattr(trainer_module, "Interruption", StopAfter)
        run(begun)
    with pytest.raises(UserError, match=re.escape(f", in {begun.out / 'config.yaml'}. CUDA")):
        run(dataclasses.replace(begun, resume=True))


def test_too_little_memory_to_restore(photographs, tiny_weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(UNet, "forward", out_of_memory)
    words = [str(photographs / "a.png"), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
    assert main(COMMANDS, ["deblur", *words]) == 2
    said = capsys.readouterr().err
    assert f"does not suffice: give --tile 128 where tiles are larger, or --device cpu. {FIGURES}\n" in said


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        (". Including non-PyTorch memory, this process has 6.59 GiB memory in use. Of the allocated", ""),
        # Where the driver does not tell torch which process it is.
        (
            ". Process 20398 has 5 GiB memory in use. Of the allocated",
            ". Process 20398 has 5 GiB memory in use",
        ),
        (". Of the allocated memory 5.94 GiB is allocated by PyTorch.", ""),
    ],
)
def test_the_affairs_of_the_allocator_are_left_out(after, kept):
    error = memory_error(torch.OutOfMemoryError(FIGURES + after + " memory"), "give less")
    assert str(error) == f"the GPU's memory does not suffice: give less. {FIGURES}{kept}"

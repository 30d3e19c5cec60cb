"""Two stages: what would fail in the second is found before the first, and what differs is said."""

import csv
import dataclasses

import pytest
import torch
import yaml

from model.data.sources import load_images
from model.errors import UserError
from model.networks import build_network
from model.training.command import run
from model.training.config import TrainConfig
from model.training.earlier_stage import say_contradictions
from model.training.start import load_photographs
from model.training.trainer import train
from model.training.validation import Validation
from model.weights import Card, load_network, load_weights, save_weights
from tests.model.conftest import TINY
from tests.model.test_trainer import finetuning


@pytest.fixture
def stages(config, tmp_path):
    """Makes a first stage whose second has these values in its file."""
    plain = {name: getattr(config, name) for name in ("steps", "crop", "batch", "device", "trackers")}

    def made(first: dict | None = None, **second) -> TrainConfig:
        file = tmp_path / "second.yaml"
        file.write_text(yaml.safe_dump({"out": str(tmp_path / "two"), "warmup": 1, **plain, **second}))
        return dataclasses.replace(config, then=file, **(first or {}))

    return made


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"only": ["decodr"], "freeze_batch_norm": True}, "--only decodr: no parameter's name begins so"),
        ({"network": "dncnn"}, "holds weights of network 'unet', not 'dncnn'"),
        ({"trackers": ["tensorbored"]}, "tracker 'tensorbored' is unknown or not installed"),
        ({"precision": "float16"}, "--precision float16 needs a GPU"),
        ({"validation": ["nowhere"]}, "nowhere, which .*second.yaml names, does not exist"),
        ({"weights": "other.safetensors"}, "names other.safetensors, but --then starts from the first stage"),
    ],
)
def test_what_would_fail_in_the_second_stage_is_found_first(stages, values, message):
    config = stages(**values)
    with pytest.raises(UserError, match=message):
        run(config)
    assert not config.out.exists()


def test_missing_lpips_is_found_first(stages, tmp_path):
    config = stages(loss="l1+0.1*lpips", lpips_weights=str(tmp_path))
    with pytest.raises(UserError, match="lpips"):
        run(config)
    assert not config.out.exists()


@pytest.mark.parametrize(("name", "more"), [("weights.safetensors", {}), ("w_0/x", {"q_weights": [0.0]})])
def test_earlier_run_of_the_second_stage_is_found_first(stages, tmp_path, name, more):
    there = tmp_path / "two" / name
    there.parent.mkdir(parents=True)
    there.touch()
    config = stages(**more)
    with pytest.raises(UserError, match=r"two holds .*--overwrite"):
        run(config)
    assert there.exists() and not config.out.exists()


def test_what_differs_is_said_in_one_line(stages, monkeypatch, capsys):
    config = stages({"blur": "disc:3", "holdout": 2, "seed": 5})
    monkeypatch.setattr("model.training.command._try_out", lambda *_: None)
    monkeypatch.setattr("model.training.command._one_stage", lambda *_: None)
    run(config)
    assert capsys.readouterr().out == (
        f"the second stage, {config.then}, differs from the first: blur box:5 (before: disc:3), "
        "seed 0 (before: 5), holdout 0 (before: 2)\n"
    )


def test_second_stage_may_start_from_the_best_weights(stages, config, tmp_path):
    best = config.out / "best.safetensors"
    with pytest.raises(UserError, match="which only validation makes: give the first stage --holdout"):
        run(stages(weights=str(best)))
    run(stages({"holdout": 1, "steps": 2}, weights=str(best), steps=1))
    card = load_weights(tmp_path / "two" / "weights.safetensors")[1]
    assert card.training["config"]["weights"] == str(best)


@pytest.mark.parametrize(
    ("made", "changes", "message"),
    [
        (
            {"blur": "disc:4", "vary": True},
            {},
            "blur box:5 (before: disc:4), vary False (before: True)",
        ),
        (
            {"holdout": 2},
            {"holdout": 2, "seed": 1},
            "what is held out here: seed 1 (before: 0)",
        ),
        (
            {"holdout": 1},
            {"holdout": 2},
            "what is held out here: holdout 2 (before: 1)",
        ),
        ({}, {"validation": True}, "3 of 3 validation photographs are also trained on, e.g. "),
        # What agrees is not spoken of: older cards lack options.
        ({"blur": "box:5", "jpeg": None, "holdout": 2}, {"holdout": 2}, ""),
        ({"holdout": 2}, {"holdout": 1}, ""),
        ({}, {"holdout": 1}, "may have been trained on"),
    ],
)
def test_data_that_contradict_the_weights_are_spoken_of(config, tmp_path, capsys, made, changes, message):
    before = {**config.recorded(), **made}
    path = tmp_path / "start.safetensors"
    save_weights(
        path, build_network("unet", dict(TINY)), Card("unet", dict(TINY), training={"config": before})
    )
    if "validation" in changes:
        changes = {"validation": config.photographs}
    tuned = finetuning(config, path, **changes)
    say_contradictions(tuned, *load_photographs(tuned))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == bool(message)
    assert all(line.startswith("warning: ") and message in line for line in lines)


def test_weights_that_fine_tuning_starts_from_are_validated_first(config, photographs, tiny_weights, capsys):
    held_out = [photographs / "a.png"]
    tuned = finetuning(config, tiny_weights, validation=held_out, precision="float32", validate_every=4)
    train(tuned)
    with (tuned.out / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "4", "6"]
    validation = Validation(load_images(held_out, 32), 32, tuned.degradation, torch.device("cpu"))
    score, _ = validation(load_network(tiny_weights)[0].eval())
    assert float(rows[0]["psnr"]) == pytest.approx(score.psnr, rel=1e-5)
    assert capsys.readouterr().out.count(f"start     {score.psnr:6.3f}") == 2
    # It is none of this run's own.
    assert load_weights(tuned.out / "best.safetensors")[1].training["steps"] > 0

"""The comparison: equal budgets, the same start for every loss, nothing trained twice, one table."""

import csv
import dataclasses
import json
from statistics import fmean

import pytest
import torch

import model.comparison.runs as runs_module
import model.training.trainer as trainer_module
from model.comparison.command import compare, run
from model.comparison.config import CompareConfig
from model.comparison.runs import FIRST, Budget, settle_budget
from model.errors import UserError
from model.evaluation.command import read_pairs
from model.evaluation.evaluator import evaluate
from model.evaluation.methods import method_from_weights
from model.evaluation.perceptual import LpipsUnavailable
from model.weights import load_weights
from tests.model.conftest import TINY
from tests.model.test_trainer import StopAfter


@pytest.fixture
def config(photographs, tmp_path) -> CompareConfig:
    """Two networks and two losses, in seconds."""
    return CompareConfig(
        photographs=[photographs / "b.jpg", photographs / "more"],
        test=[photographs],
        out=tmp_path / "compare",
        networks=["unet", "ddnet"],
        losses=["l1", "l1 + 0.5*q"],
        network_args={"unet": dict(TINY), "ddnet": {"width": 8, "blocks": 1}},
        steps=3,
        finetune_steps=2,
        batch=2,
        crop=32,
        lpips_weights=None,
        device="cpu",
    )


@pytest.fixture
def trained(monkeypatch) -> list[tuple]:
    """Notes every run that is trained."""
    seen = []
    original = runs_module.train

    def noting(config, title):
        seen.append(config)
        return original(config, title)

    monkeypatch.setattr(runs_module, "train", noting)
    return seen


def test_runs_are_alike_but_for_network_and_loss(config, trained):
    comparison = compare(config)
    assert [(one.network, one.stage, one.loss) for one in trained] == [
        (network, stage, loss)
        for network in ("unet", "ddnet")
        for stage, loss in (("train", ""), ("finetune", "l1"), ("finetune", "l1+0.5*q"))
    ]
    names = ("batch", "crop", "blur", "photographs", "warmup", "ema", "augment")
    for name in names:
        assert len({str(getattr(one, name)) for one in trained}) == 1
    for stage, seed, steps in (("train", 0, 3), ("finetune", 1, 2)):
        assert {(one.seed, one.steps) for one in trained if one.stage == stage} == {(seed, steps)}
    # Every loss starts from the first stage of its own network.
    assert {one.weights for one in trained if one.stage == "finetune" and one.network == "ddnet"} == {
        config.out / "ddnet" / "first" / "weights.safetensors"
    }
    assert [line.loss for line in comparison.lines] == 2 * [FIRST, "l1", "l1+0.5*q"]
    assert [line.knows_blur for line in comparison.lines] == 3 * [False] + 3 * [True]
    assert [line.earlier_steps for line in comparison.lines] == 2 * [0, 3, 3]
    assert [line.crops for line in comparison.lines] == 2 * [6, 4, 4]


def test_table_is_what_the_weights_measure(config, photographs, capsys, monkeypatch):
    def unavailable():
        raise LpipsUnavailable("not here")

    monkeypatch.setattr("model.evaluation.perceptual._features_from_cache", unavailable)
    run(config)
    text = (config.out / "table.md").read_text()
    assert "| ddnet (width=8, blocks=1, knows the blur) |" in text
    assert "l1, first stage" in text and " 3 + 2 " in text
    assert "Against l1, picture by picture:" in text
    assert "Protocol central" in text
    assert (
        "Trained on smaller crops than these pictures of up to 128 pixels: unet first stage (32 x 32)" in text
    )
    # Before the hours of training, and again where it matters.
    said = capsys.readouterr().out
    assert said.index("no LPIPS column: ") < said.index("unet, MAE: ")
    with (config.out / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["network"] for row in rows] == ["blurred", *3 * ["unet"], *3 * ["ddnet"]]
    content = json.loads((config.out / "table.json").read_text())
    assert content["facts"]["config"]["steps"] == 3
    weights = config.out / "ddnet" / "l1+0.5q" / "weights.safetensors"
    pairs = read_pairs(config.evaluation([]), config.evaluation([]).settled())
    control = config.out / "ddnet" / "l1" / "weights.safetensors"
    methods = [method_from_weights(path, torch.device("cpu")) for path in (control, weights)]
    for name, method in zip(("control", "with q"), methods, strict=True):
        method.name = name
    measured = evaluate(methods, pairs, "pythonq", None)
    means = [fmean(one.psnr for one in measured if one.method == name) for name in ("control", "with q")]
    assert float(rows[-1]["psnr"]) == pytest.approx(means[1], rel=1e-5)
    found = [one for one in content["differences"] if one["network"] == "ddnet" and one["metric"] == "psnr"]
    assert [one["loss"] for one in found] == ["l1+0.5*q"]
    assert found[0]["mean"] == pytest.approx(means[1] - means[0], abs=1e-9)


def test_interrupted_comparison_repeats_nothing(config, trained, monkeypatch, capsys):
    whole = compare(dataclasses.replace(config, out=config.out / "whole"))
    cut = dataclasses.replace(config, out=config.out / "cut")
    trained.clear()
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", SecondStopped)
        assert compare(cut) is None
    assert f"python -m model compare --resume --out {cut.out}" in capsys.readouterr().out
    assert len(trained) == 2
    trained.clear()
    resumed = compare(dataclasses.replace(cut, resume=True))
    assert [(one.network, one.loss, one.resume) for one in trained] == [
        ("unet", "l1", True),
        ("unet", "l1+0.5*q", False),
        ("ddnet", "", False),
        ("ddnet", "l1", False),
        ("ddnet", "l1+0.5*q", False),
    ]
    assert [line.means for line in resumed.lines] == [line.means for line in whole.lines]
    trained.clear()
    compare(dataclasses.replace(cut, resume=True))
    assert trained == []
    with pytest.raises(UserError, match="holds an earlier comparison; --resume goes on"):
        compare(cut)
    compare(dataclasses.replace(cut, overwrite=True))
    assert len(trained) == 6


class SecondStopped(StopAfter):
    """Lets the first run through and stops the second after a step."""

    runs = 0

    def __init__(self):
        super().__init__()
        SecondStopped.runs += 1
        self.looks = 1 if SecondStopped.runs == 2 else 10**6


def test_weights_of_an_unfinished_run_are_not_taken_for_finished(config, trained):
    """A run that was killed after a checkpoint has left weights too."""
    compare(config)
    path = config.out / "unet" / "l1" / "weights.safetensors"
    short = dataclasses.replace(trained[1], steps=1, overwrite=True)
    trainer_module.train(short)
    assert load_weights(path)[1].training["steps"] == 1
    trained.clear()
    compare(dataclasses.replace(config, resume=True))
    assert [one.out for one in trained] == [path.parent]


def test_minutes_become_steps_once(config, monkeypatch):
    config = dataclasses.replace(config, minutes=1.0, finetune_minutes=0.5)
    monkeypatch.setattr(runs_module, "_seconds_per_step", lambda config, network: 0.7)
    budget = settle_budget(config, "unet")
    assert budget == Budget(85, 42, 0.7)
    # A resumed run must not have other steps because the machine has become slower.
    monkeypatch.setattr(runs_module, "_seconds_per_step", lambda config, network: 7.0)
    assert settle_budget(config, "unet") == budget
    assert settle_budget(dataclasses.replace(config, minutes=0.0), "ddnet") == Budget(3, 4, 7.0)
    with pytest.raises(UserError, match=r"a step of unet takes 7\.0 s, longer than a stage"):
        settle_budget(dataclasses.replace(config, minutes=0.1, out=config.out / "other"), "unet")


def test_the_time_of_a_step_is_measured(config):
    assert 0 < runs_module._seconds_per_step(config, "unet") < 10
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photographs": []}, "no photographs given to train on"),
        ({"test": []}, "no photographs given to measure on"),
        ({"networks": ["unett"]}, "no network is called 'unett'; did you mean 'unet'"),
        ({"networks": ["unet", "unet"], "network_args": {}}, "--networks names one twice"),
        ({"losses": ["l1", "mae"]}, "--losses names one twice: l1, l1"),
        ({"losses": ["l1", "lpipps"]}, "did you mean 'lpips'"),
        ({"losses": []}, "--losses names none"),
        ({"network_args": {"ifan": {}}}, "--network_args is for ifan, which --networks leaves out"),
        ({"network_args": {"unet": {"withs": 3}}}, "cannot be built"),
        ({"finetune_steps": 0}, "--finetune_steps must be positive, got 0"),
        ({"minutes": -1.0}, r"--minutes must not be negative, got -1\.0"),
        ({"crop": 8}, "--crop must be at least 16"),
        ({"protocol": "centrall"}, "no protocol is called 'centrall'"),
    ],
)
def test_what_cannot_work_is_named_before_anything_is_trained(config, change, message, trained):
    with pytest.raises(UserError, match=message):
        compare(dataclasses.replace(config, **change))
    assert not trained and not config.out.exists()


def test_saved_configuration_is_the_one_that_was_given(config, run_model):
    """Through the command line, resumed by it too."""
    config = dataclasses.replace(config, networks=["unet"], network_args={"unet": dict(TINY)})
    words = [
        *("--photographs", *config.photographs, "--test", *config.test, "--networks", "unet"),
        *("--losses", "l1,l1+0.5*q", "--network_args", json.dumps(config.network_args), "--steps", 3),
        *("--finetune_steps", 2, "--batch", 2, "--crop", 32, "--device", "cpu", "--out", config.out),
    ]
    done = run_model("compare", *words)
    assert done.returncode == 0, done.stderr
    again = run_model("compare", "--resume", "--out", config.out)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before") == 3
    tables = [text.split("| network ")[1].split("Against")[0] for text in (done.stdout, again.stdout)]
    assert tables[0] == tables[1]

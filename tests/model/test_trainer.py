"""Training: it learns, it resumes to the same bits, and what it is told wrong it names."""

import csv
import dataclasses
import re

import pytest
import torch
import yaml

import model.training.trainer as trainer_module
from model.errors import UserError
from model.training.config import FinetuneConfig, TrainConfig
from model.training.engine import choose_precision
from model.training.losses import build_loss
from model.training.trainer import Interruption, train
from model.weights import load_weights
from qkernel import q_metric
from tests.model.conftest import TINY


def finetuning(config: TrainConfig, weights, **changes) -> FinetuneConfig:
    shared = {item.name: getattr(config, item.name) for item in dataclasses.fields(TrainConfig)}
    return FinetuneConfig(
        **{**shared, "weights": weights, "out": config.out.with_name("finetuned"), **changes}
    )


class StopAfter(Interruption):
    """Asks for an end as a signal would, after a number of looks."""

    looks = 3

    @property
    def requested(self):
        self.looks -= 1
        return "SIGINT" if self.looks < 0 else None

    @requested.setter
    def requested(self, value):
        pass


def test_run_leaves_config_log_and_weights(config):
    outcome = train(config)
    assert outcome.finished
    assert outcome.step == 6
    assert {path.name for path in config.out.iterdir()} == {
        "config.yaml",
        "log.csv",
        "log.txt",
        "report.html",
        "weights.safetensors",
    }
    saved = yaml.safe_load((config.out / "config.yaml").read_text())
    assert saved == config.recorded()
    with (config.out / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["crops"]) for row in rows] == [("2", "4"), ("4", "8"), ("6", "12")]
    assert float(rows[-1]["pixel"]) == pytest.approx(outcome.terms["pixel"], rel=1e-5)
    _, card = load_weights(outcome.weights)
    assert (card.network, card.stage, card.loss) == ("unet", "train", {"name": "mae"})
    assert card.training["crops"] == 12


def test_network_learns_to_restore(config, photographs):
    """On crops of its own photographs the loss falls clearly below that of the blurred picture."""
    config.network_args = {"widths": [8, 16], "depth": 2, "output_gain": 0.0}
    config.steps, config.lr, config.batch, config.log_every = 200, 1e-2, 4, 25
    with_identity = train(dataclasses.replace(config, lr=1e-12, out=config.out / "identity"))
    trained = train(dataclasses.replace(config, out=config.out / "trained"))
    assert trained.terms["pixel"] < 0.9 * with_identity.terms["pixel"]


def test_interrupted_and_resumed_is_bitwise_the_same(config, monkeypatch):
    whole = train(dataclasses.replace(config, out=config.out / "whole"))
    cut = dataclasses.replace(config, out=config.out / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", StopAfter)
        stopped = train(cut)
    assert (stopped.finished, stopped.step) == (False, 3)
    assert (cut.out / "weights.safetensors").is_file()
    resumed = train(dataclasses.replace(cut, resume=True))
    assert (resumed.finished, resumed.step) == (True, 6)
    assert not (cut.out / "checkpoints").exists()
    expected, _ = load_weights(whole.weights)
    found, _ = load_weights(resumed.weights)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    with (cut.out / "log.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6"]


def test_finetuning_starts_from_the_weights_and_uses_q(config):
    first = train(config)
    start, _ = load_weights(first.weights)
    # No rate to speak of: the weights must still be those it started from.
    still = train(finetuning(config, first.weights, lr=1e-30, steps=2))
    kept, card = load_weights(still.weights)
    assert all(torch.equal(kept[name], start[name]) for name in start if "running" not in name)
    assert card.stage == "finetune"
    assert (card.loss["weight"], card.loss["definition"]) == (0.01, "mmsp2024")
    assert set(still.terms) == {"loss", "pixel", "q"}
    assert still.terms["loss"] == pytest.approx(still.terms["pixel"] - 0.01 * still.terms["q"], rel=1e-5)


def test_q_in_the_loss_makes_pictures_sharper(config):
    """Against the control, w = 0, from the same weights on the same crops."""
    config.network_args = {"widths": [8, 16], "depth": 2, "output_gain": 0.0}
    config.steps, config.lr, config.batch = 30, 5e-3, 4
    first = train(config)
    runs = {
        weight: train(
            finetuning(config, first.weights, q_weight=weight, log_every=30, out=config.out / str(weight))
        )
        for weight in (0.0, 0.5)
    }
    assert runs[0.5].terms["q"] > 1.02 * runs[0.0].terms["q"]


@pytest.mark.parametrize("definition", ["zhu2010", "mmsp2024", "pythonq"])
def test_loss_is_equation_seven(config, definition):
    loss = build_loss(finetuning(config, "w", q_weight=0.05, q_definition=definition))
    restored, sharp = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    value, terms = loss(restored, sharp)
    q = q_metric(restored, definition=definition)
    torch.testing.assert_close(value, (restored - sharp).abs().mean() - 0.05 * q)
    torch.testing.assert_close(terms["q"], q)


def test_broken_photograph_is_named_and_training_goes_on(config, tmp_path, photographs, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.png").write_bytes((photographs / "a.png").read_bytes())
    (folder / "bad.png").write_bytes(b"nothing")
    assert train(dataclasses.replace(config, photographs=[folder], steps=1)).finished
    assert "skipped" in (output := capsys.readouterr().out)
    assert "bad.png: not a picture" in output
    assert "1 photographs" in output or "1 photograph" in output


def test_earlier_runs_are_not_replaced_unasked(config, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "Interruption", StopAfter)
        train(config)
    with pytest.raises(UserError, match="--resume goes on"):
        train(config)
    assert train(dataclasses.replace(config, overwrite=True)).finished
    with pytest.raises(UserError, match="holds a finished run"):
        train(config)
    with pytest.raises(UserError, match="holds no interrupted run"):
        train(dataclasses.replace(config, resume=True))


def test_loss_that_is_not_finite_stops_the_run(config, monkeypatch):
    monkeypatch.setattr(
        trainer_module, "build_loss", lambda _: lambda restored, sharp: (restored.sum() * float("nan"), {})
    )
    with pytest.raises(
        UserError, match="the loss is not finite at step 1; no checkpoint was due before; a lower --lr"
    ):
        train(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "--steps must be positive, got 0"),
        ({"blur": "box:4"}, "must be odd, from 1 to 63, got 4"),
        ({"crop": 8}, "--crop must be at least 16 pixels, got 8"),
        ({"seed": -1}, "--seed must not be negative, got -1"),
        ({"photographs": []}, "no photographs given"),
        ({"network": "unett"}, "did you mean 'unet'"),
        ({"device": "cudda"}, "no device is called 'cudda'"),
        ({"crop": 400}, "none of 3 photographs can be used"),
        ({"blur": "disc:20", "crop": 16}, "--crop 16 is too small for --blur disc:20"),
        ({"noise": -1.0}, "--noise must not be negative, got -1.0"),
        ({"jpeg": 101}, "--jpeg is a quality from 1 to 100, or 0 for no compression, got 101"),
        ({"light": True, "quantise": False}, "--light makes 8-bit pictures"),
        ({"holdout": 3}, "--holdout 3 leaves nothing of 3 photographs to train on"),
        ({"ema": 1.0}, "--ema must be at least 0 and below 1, got 1.0"),
        ({"lr_end": 2.0}, "--lr_end is a share of --lr, from 0 to 1, got 2.0"),
        ({"schedule": "exponential"}, "exponential never reaches 0; give --lr_end"),
        ({"precision": "float16"}, "--precision float16 needs a GPU"),
        ({"trackers": ["tensorbored"]}, "tracker 'tensorbored' is unknown or not installed"),
    ],
)
def test_impossible_values_are_named(config, change, message):
    with pytest.raises(UserError, match=message):
        train(dataclasses.replace(config, **change))


@pytest.mark.parametrize(
    "capabilities, expected",
    [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")],
)
def test_precision_is_the_quickest_of_the_processor(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == expected
    assert choose_precision("float32", torch.device("cpu")) == "float32"


def test_precision_of_a_torch_that_does_not_know_the_processor(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision("auto", torch.device("cpu")) == "float32"


def test_finetuning_takes_the_network_from_the_weights(config):
    first = train(config)
    assert (
        load_weights(train(finetuning(config, first.weights, network_args={})).weights)[1].network_args
        == TINY
    )
    with pytest.raises(UserError, match="leave --network_args away"):
        train(finetuning(config, first.weights, network_args={"depth": 2}, out=config.out / "other"))


def test_only_a_part_is_trained_and_the_rest_keeps_its_bits(config, capsys):
    first = train(config)
    parts = dataclasses.replace(config, out=config.out / "part")
    with pytest.raises(UserError, match="--only output needs --freeze_batch_norm true"):
        train(finetuning(parts, first.weights, only=["output"]))
    with pytest.raises(
        UserError, match="--only outpt: no parameter's name begins so; the network has encoder"
    ):
        train(finetuning(parts, first.weights, only=["outpt"], freeze_batch_norm=True))
    only = ["decoder.0.block", "output"]
    outcome = train(
        finetuning(parts, first.weights, only=only, freeze_batch_norm=True, weight_decay=0.1, q_weight=0.1)
    )
    assert re.search(r"with [\d,]+ parameters, [\d,]+ of them trained, on cpu", capsys.readouterr().out)
    before, after = load_weights(first.weights)[0], load_weights(outcome.weights)[0]
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved and all(name.startswith(("decoder.0.block.", "output.")) for name in moved)
    assert "output.weight" in moved and len(moved) > 2


def test_a_part_of_a_network_without_batch_norm_needs_no_statistics_held(config):
    config = dataclasses.replace(config, steps=1, network="dncnn", network_args={"width": 8, "depth": 3})
    assert train(finetuning(config, train(config).weights, only=["layers.0"])).finished


def test_negative_q_weight_and_missing_weights_are_named(config):
    with pytest.raises(UserError, match=r"--q_weight must not be negative, got -0\.1"):
        train(finetuning(config, "w", q_weight=-0.1))
    with pytest.raises(UserError, match="no weights to start from"):
        train(finetuning(config, None))


def test_network_that_knows_the_blur_is_told_that_of_its_crops(config):
    config.network, config.network_args, config.crop = "ddnet", {"width": 8, "blocks": 1}, 32
    config.steps, config.blur = 1, "box:3"
    outcome = train(config)
    assert load_weights(outcome.weights)[1].network_args["blur"] == 3
    with pytest.raises(UserError, match="ddnet is told a box of 5, but the crops have --blur box:3"):
        train(dataclasses.replace(config, network_args={"blur": 5}, overwrite=True))
    with pytest.raises(UserError, match="ddnet must be told the blur"):
        train(dataclasses.replace(config, network_args={}, blur="disc:2", overwrite=True))
    with pytest.raises(UserError, match="ddnet is told one blur and cannot learn many: leave --vary away"):
        train(dataclasses.replace(config, network_args={}, vary=True, overwrite=True))
    with pytest.raises(UserError, match="ddnet is told a blur of levels: leave --light away"):
        train(dataclasses.replace(config, network_args={}, light=True, overwrite=True))
    with pytest.raises(UserError, match="is told a box of 3, but the crops have --blur box:5"):
        train(finetuning(config, outcome.weights, network_args={}, blur="box:5"))

"""Losses by name: read as written, computed as published, with the gradient of what they compute."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage.metrics import structural_similarity

import model.training.trainer as trainer_module
from model.errors import UserError
from model.evaluation.perceptual import Lpips
from model.training.config import TrainConfig
from model.training.formula import TERMS, Term, parse_loss, written
from model.training.losses import TermSum, build_loss, describe_loss
from model.training.terms import (
    Charbonnier,
    MeanAbsoluteError,
    MeanSquaredError,
    Perceptual,
    Sharpness,
    SobelDifference,
    StructuralDissimilarity,
)
from model.training.trainer import train
from model.weights import load_weights
from qkernel import MAEQLoss, q_metric
from tests.model.test_trainer import finetuning
from tests.photographs import data_folder, scikit_image_photograph


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """A photograph and a blurred, noisy version of it, 1 x 1 x 40 x 52 float64 in [0, 1]."""
    with Image.open(scikit_image_photograph("camera.png")) as picture:
        sharp = np.asarray(picture.convert("L"), dtype=np.float64)[100:140, 200:252] / 255
    noise = np.random.default_rng(3).normal(0, 0.02, sharp.shape)
    restored = ndimage.uniform_filter(sharp, 3) + noise
    return torch.from_numpy(restored)[None, None], torch.from_numpy(sharp)[None, None]


def numbers(pair) -> tuple[np.ndarray, np.ndarray]:
    return tuple(one[0, 0].numpy() for one in pair)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("l1", [Term("l1")]),
        ("MAE", [Term("l1")]),
        ("l1+0.01*q+0.1*lpips", [Term("l1"), Term("q", 0.01), Term("lpips", 0.1)]),
        (" 2 * mse + 1e-3*q ", [Term("mse", 2.0), Term("q", 1e-3)]),
        ("1e+1*ssim+.5*sobel", [Term("ssim", 10.0), Term("sobel", 0.5)]),
        ("charbonnier+0*q", [Term("charbonnier"), Term("q", 0.0)]),
    ],
)
def test_formulas_are_read_and_written(text, terms):
    assert parse_loss(text) == tuple(terms)
    assert parse_loss(written(tuple(terms))) == tuple(terms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("l1+0.1*lipps", "no term is called 'lipps'; did you mean 'lpips'"),
        ("l2x", "no term is called 'l2x'"),
        ("l1+0.1*", r"cannot read the term '0\.1\*'"),
        ("l1++q", "cannot read the term ''"),
        ("", "cannot read the term ''"),
        ("l1-0.01*q", r"cannot read 'l1-0\.01\*q'; .*q is subtracted by itself"),
        ("l1+-0.01*q", r"weight of q must not be negative, got -0\.01; q is subtracted by itself"),
        ("l1+x*q", "the weight of q, 'x', is no number"),
        ("l1+nan*q", "weight of q must not be negative, got nan"),
        ("l1+inf*mse", "weight of mse must not be negative, got inf"),
        ("l1+mae", "l1 appears twice"),
        ("0*l1", "all weights are 0"),
    ],
)
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(UserError, match=message):
        parse_loss(text)


def test_ssim_is_that_of_scikit_image(pair):
    restored, sharp = numbers(pair)
    expected = structural_similarity(
        sharp, restored, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert 0.3 < expected < 0.99
    term = StructuralDissimilarity()
    assert 1 - term(*pair).item() == pytest.approx(expected, abs=1e-12)
    # What training computes in.
    assert 1 - term(*(one.float() for one in pair)).item() == pytest.approx(expected, abs=2e-6)
    assert term(pair[1], pair[1]).item() == pytest.approx(0, abs=1e-15)


def test_ssim_of_colours_is_the_mean_of_the_channels(pair):
    term = StructuralDissimilarity()
    other = [one.flip(2) ** 2 for one in pair]
    together = term(*(torch.cat([a, b], 1) for a, b in zip(pair, other, strict=True)))
    assert together.item() == pytest.approx((term(*pair) + term(*other)).item() / 2)


def test_sobel_is_that_of_scipy_inside_the_border(pair):
    restored, sharp = numbers(pair)
    difference = [
        np.abs(ndimage.sobel(restored, axis) - ndimage.sobel(sharp, axis))[1:-1, 1:-1] / 8 for axis in (0, 1)
    ]
    assert SobelDifference()(*pair).item() == pytest.approx(np.mean(difference), rel=1e-12)
    ramp = torch.arange(9.0).expand(1, 1, 9, 9)
    # A slope of 1 in one direction and none in the other.
    assert SobelDifference()(ramp, torch.zeros_like(ramp)).item() == 0.5


def test_pixel_terms_are_their_definitions(pair):
    restored, sharp = numbers(pair)
    gap = restored - sharp
    assert MeanAbsoluteError()(*pair).item() == pytest.approx(np.abs(gap).mean())
    assert MeanSquaredError()(*pair).item() == pytest.approx((gap**2).mean())
    assert Charbonnier()(*pair).item() == pytest.approx(np.sqrt(gap**2 + 1e-6).mean())
    assert Sharpness("pythonq")(*pair).item() == pytest.approx(q_metric(pair[0], definition="pythonq").item())


@pytest.mark.parametrize(
    "term",
    [
        MeanAbsoluteError(),
        MeanSquaredError(),
        Charbonnier(),
        Sharpness("mmsp2024"),
        StructuralDissimilarity(),
        SobelDifference(),
    ],
    ids=lambda term: type(term).__name__,
)
def test_gradient_is_that_of_finite_differences(term, pair):
    """Random pixels: none of the differences and gradients that are compared is zero, where kinks are."""
    random = torch.Generator().manual_seed(1)
    restored, sharp = (torch.rand(1, 1, 16, 16, generator=random, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: term(x, sharp), restored.requires_grad_())


@pytest.fixture(scope="module")
def perceptual() -> Perceptual:
    return Perceptual(Lpips(data_folder("lpips_weights")))


def test_lpips_is_that_of_the_evaluation(perceptual):
    metric = Lpips(data_folder("lpips_weights"))
    pictures = [np.random.default_rng(seed).integers(256, size=(48, 40), dtype=np.uint8) for seed in (0, 1)]
    shown = [torch.from_numpy(picture)[None, None] / 255 for picture in pictures]
    assert perceptual(*shown).item() == pytest.approx(metric(*pictures), rel=1e-5)
    assert not any(one.requires_grad for one in perceptual.parameters())


def test_lpips_gradient_is_that_of_a_small_step(perceptual, pair):
    term = perceptual.double()
    restored, sharp = (one[..., :40].clone() for one in pair)
    restored.requires_grad_()
    (gradient,) = torch.autograd.grad(term(restored, sharp), restored)
    step = 1e-6 * gradient / gradient.norm()
    with torch.no_grad():
        change = term(restored + step, sharp) - term(restored - step, sharp)
    term.float()
    # Rectifiers may switch on the way.
    assert change.item() == pytest.approx(2e-6 * gradient.norm().item(), rel=1e-3)


def test_pictures_too_small_for_a_window_are_named():
    small = torch.rand(1, 1, 2, 30)
    with pytest.raises(ValueError, match="at least 11 pixels"):
        StructuralDissimilarity()(small, small)
    with pytest.raises(ValueError, match="at least 3 pixels"):
        SobelDifference()(small, small)


@pytest.mark.parametrize(
    ("formula", "fused"),
    [
        ("l1+0.01*q", "l1"),
        ("0.5*q+2*mse", "mse"),
        ("ssim+0.1*q+3*charbonnier+sobel", "charbonnier"),
        ("ssim+0.1*q", None),
        ("l1+ssim", None),
        ("0*l1+0.1*q", None),
    ],
)
def test_a_sum_is_the_sum_of_its_terms(formula, fused, pair):
    """Fused or not, value and gradient are those of the terms alone, which are logged without weights."""
    config = TrainConfig(loss=formula, q_definition="pythonq")
    loss = build_loss(config)
    assert isinstance(loss, TermSum)
    assert loss.pixel == fused
    assert isinstance(loss.fused, MAEQLoss) is (fused is not None)
    restored, sharp = (one.float() for one in pair)
    restored.requires_grad_()
    value, seen = loss(restored, sharp)
    alone = {
        term.name: TermSum([Term(term.name)], config)(restored, sharp)[0] for term in parse_loss(formula)
    }
    expected = sum(term.weight * alone[term.name] for term in parse_loss(formula))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(one, restored, retain_graph=True)[0] for one in (value, expected)),
        rtol=1e-4,
        atol=1e-8,
    )
    assert list(seen) == [term.name for term in parse_loss(formula)]
    for name, one in seen.items():
        sign = -1 if name == "q" else 1
        torch.testing.assert_close(one, sign * alone[name].detach())
        assert not one.requires_grad


def test_sum_of_mae_and_q_is_the_loss_of_finetune(config, pair):
    named = build_loss(dataclasses.replace(config, loss="l1+0.03*q"))
    default = build_loss(finetuning(config, "w", q_weight=0.03))
    restored, sharp = (one.float() for one in pair)
    assert named(restored, sharp)[0] == default(restored, sharp)[0]


def test_every_term_can_be_built(config):
    data_folder("lpips_weights")
    config = dataclasses.replace(config, lpips_weights=data_folder("lpips_weights"))
    assert {*TermSum([Term(name) for name in TERMS if name != "l1"], config).others} >= {"ssim", "lpips"}


def test_terms_are_logged_apart_and_recorded(config):
    config = dataclasses.replace(
        config, loss="l1 + 0.01*q + 0.5*ssim+sobel", trackers=["tensorboard"], q_definition="zhu2010"
    )
    outcome = train(config)
    names = ["l1", "q", "ssim", "sobel"]
    assert list(outcome.terms) == [*names, "loss"]
    terms = outcome.terms
    total = terms["l1"] - 0.01 * terms["q"] + 0.5 * terms["ssim"] + terms["sobel"]
    assert terms["loss"] == pytest.approx(total, rel=1e-4)
    with (config.out / "log.csv").open(newline="") as file:
        assert set(names) <= set(next(csv.reader(file)))
    card = load_weights(outcome.weights)[1]
    assert card.loss["name"] == "l1+0.01*q+0.5*ssim+sobel"
    assert card.loss["definition"] == "zhu2010"
    page = (config.out / "report.html").read_text()
    assert "1 - SSIM" in page and "Sobel" in page
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(config.out / "logs" / "qkernel")).Reload()
    assert set(names) <= set(events.Tags()["scalars"])


def test_finetuning_takes_a_loss_too(config):
    first = train(config)
    outcome = train(finetuning(config, first.weights, loss="mse+0.1*q", steps=2))
    assert list(outcome.terms) == ["mse", "q", "loss"]
    assert load_weights(outcome.weights)[1].loss["name"] == "mse+0.1*q"


def test_loss_without_q_records_no_definition(config):
    assert describe_loss(dataclasses.replace(config, loss="sobel")) == {"name": "sobel"}


def test_term_that_is_not_finite_is_named(config, monkeypatch):
    class Broken(SobelDifference):
        def forward(self, restored, sharp):
            return super().forward(restored, sharp) * float("nan")

    monkeypatch.setitem(trainer_module.build_loss.__globals__, "build_term", lambda name, config: Broken())
    with pytest.raises(UserError, match="the term 'sobel' is not finite at step 1"):
        train(dataclasses.replace(config, loss="l1+0.01*q+sobel"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "l1+lipps"}, "did you mean 'lpips'"),
        ({"loss": "l1+lpips", "crop": 24, "batch": 4}, "lpips needs --crop 31 or more, got 24"),
        ({"lpips_weights": Path("nowhere")}, "--lpips_weights nowhere is not a folder"),
        ({"q_eps": -1.0}, r"--q_eps must not be negative, got -1\.0"),
    ],
)
def test_impossible_losses_are_named_before_anything_is_written(config, change, message):
    with pytest.raises(UserError, match=message):
        train(dataclasses.replace(config, **change))
    assert not config.out.exists()


def test_missing_lpips_weights_are_named_before_anything_is_written(config, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"--loss l1\+lpips: LPIPS needs AlexNet's weights"):
        train(dataclasses.replace(config, loss="l1+lpips"))
    assert not config.out.exists()


@pytest.mark.parametrize("given", [{"q_weight": 0.01}, {"q_weights": [0.1, 0.2]}])
def test_loss_and_weight_of_q_contradict_each_other(config, given):
    with pytest.raises(
        UserError, match=rf"--loss l1 and --{next(iter(given))} .* both say what is minimised"
    ):
        finetuning(config, "w", loss="l1", **given).check()


def test_lpips_trains(config):
    """Its weights stay as they are, and its share in the loss falls."""
    folder = data_folder("lpips_weights")
    config = dataclasses.replace(
        config,
        loss="lpips",
        lpips_weights=folder,
        network_args={"widths": [8, 16], "depth": 1, "output_gain": 0.0},
        steps=30,
        log_every=10,
        lr=5e-3,
    )
    train(config)
    with (config.out / "log.csv").open(newline="") as file:
        values = [float(row["lpips"]) for row in csv.DictReader(file)]
    assert values[-1] < values[0]

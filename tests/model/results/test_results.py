"""The results page, made from real runs of a second."""

import csv
import re
from dataclasses import replace

import pytest
from PIL import Image

from model.errors import UserError
from model.evaluation.paired import Difference
from model.evaluation.table import shown
from model.results.command import run
from model.results.config import ResultsConfig
from model.results.measuring import measure_all
from model.results.page import _monotone, _verdict, page
from model.training.config import FinetuneConfig, TrainConfig
from model.training.sweep import sweep
from model.training.trainer import train
from model.weights import load_weights, serialised
from tests.model.conftest import ROOT, TINY

RUN = {
    "steps": 2,
    "batch": 2,
    "crop": 64,
    "lr": 0.01,
    "warmup": 0,
    "holdout": 1,
    "ema": 0.0,
    "freeze_batch_norm": True,
    "trackers": ["none"],
    "device": "cpu",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photographs):
    """Data sets, and all stages of training, from tiny fresh weights on."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("kodak", "bsds500"):
        (folder / name).mkdir()
        for path in (photographs / "a.png", photographs / "b.jpg"):
            (folder / name / path.name).write_bytes(path.read_bytes())
    shared = {"photographs": [photographs], **RUN}
    first = train(TrainConfig(out=folder / "first", network_args={**TINY, "output_gain": 0.2}, **shared))
    weights = folder / "weights"
    weights.mkdir()
    start = weights / "unet_mae.safetensors"
    start.write_bytes(first.weights.read_bytes())
    sweep(FinetuneConfig(out=folder / "sweep", weights=start, q_weights=[0, 0.01, 0.5], **shared))
    sharp = folder / "sweep" / "w_0.5" / "weights.safetensors"
    (weights / "unet_mae_q.safetensors").write_bytes(sharp.read_bytes())
    for name, weight, eps in (("control", 0, 0), ("smooth", 0.5, 0.01)):
        out = folder / "study" / name
        train(FinetuneConfig(out=out, weights=start, q_weight=weight, q_eps=eps, **shared))
    return folder


@pytest.fixture
def config(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("model.shipped.FOLDER", folder / "weights")
    return ResultsConfig(
        data=folder,
        sweep=folder / "sweep",
        study=folder / "study",
        dial=3,
        out=tmp_path / "page.md",
        run=tmp_path / "run",
        device="cpu",
    )


def test_page_shows_what_was_measured(config):
    run(config)
    text = config.out.read_text()
    results = measure_all(config)
    for table, _ in results.tables.values():
        for row in table.rows:
            if row.ours:
                assert f"{shown('psnr', row.values['psnr'])}" in text
                assert f"{shown('q', row.values['q'])}" in text
    for head in ("Reading", "Kodak, beside the paper's Table I", "BSDS500", "The dial", "Where it rings"):
        assert f"\n## {head}\n" in text
    assert "MAE - 0.5 Q (mmsp2024, eps 0.01)" in text
    assert "of the 1 photographs that were kept from training" in text
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert sorted(pictures) == sorted(f"page/{name}.png" for name in ("sweep", "dial", "crops", "q_maps"))
    for name in pictures:
        with Image.open(config.out.parent / name) as picture:
            assert min(picture.size) > 100
    with (config.out.parent / "page" / "kodak.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # blurred, the two networks, three weights of Q; two pictures.
    assert len(rows) == 6 * 2


def test_differences_are_to_the_control_on_the_same_pictures(config):
    results = measure_all(config)
    table, _ = results.tables["paper-kodak"]
    of = {(one.method, one.image): one.psnr for one in table.measurements}
    images = {one.image for one in table.measurements}
    by_hand = sum(of["w=0.5", image] - of["w=0", image] for image in images) / len(images)
    assert results.differences("paper-kodak", "w=0.5", "w=0")["psnr"].mean == pytest.approx(by_hand)
    assert results.weights_of_q == ["w=0", "w=0.01", "w=0.5"]


def test_the_ends_of_the_dial_are_the_two_networks(config):
    results = measure_all(config)
    rows = {row.labels[0]: row.values for row in results.tables["paper-kodak"][0].rows}
    assert [row.labels[0] for row in results.dial] == ["sharpness=0", "sharpness=0.5", "sharpness=1"]
    for end, name in ((results.dial[0], results.soft), (results.dial[-1], results.sharp)):
        assert end.values["psnr"] == pytest.approx(rows[name]["psnr"], abs=1e-6)
        assert end.values["q"] == pytest.approx(rows[name]["q"], abs=1e-6)


def test_without_a_sweep_nothing_is_said_of_q(config):
    config = replace(config, sweep=None, study=None, out=None)
    run(config)
    # The page of the repository is not replaced by one with less.
    text = (config.run / "results.md").read_text()
    assert "What Q does" not in text and "against the control" not in text
    assert "## The dial" in text


def test_verdicts_follow_the_intervals():
    up, down = Difference(1.0, (0.5, 1.5)), Difference(-1.0, (-1.5, -0.5))
    open_ = Difference(1.0, (-0.5, 1.5))
    assert [_verdict(up, metric) for metric in ("psnr", "q", "lpips")] == ["better", "higher", "worse"]
    assert [_verdict(down, metric) for metric in ("ssim", "q", "lpips")] == ["worse", "lower", "better"]
    assert _verdict(open_, "psnr") == "no certain change"
    assert _verdict(None, "lpips") == "not measured"


def test_a_bump_in_the_dial_is_noticed(config):
    rows = measure_all(config).dial
    straight = [replace(row, values={"psnr": 30 + place}) for place, row in enumerate(rows)]
    assert _monotone(straight, "psnr")
    bumpy = [replace(row, values={"psnr": value}) for row, value in zip(rows, (30, 31, 30.5), strict=True)]
    assert not _monotone(bumpy, "psnr")


def test_the_dial_says_nothing_of_what_was_not_measured(config):
    text = page(measure_all(config), "page")
    verdict = re.search(r"dial\.png\)\n\n(.*)", text)[1]
    assert "PSNR dB" in verdict and "LPIPS" not in verdict


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dial": 1}, "--dial must be at least 2"),
        ({"limit": -1}, "--limit must not be negative"),
        ({"out": ROOT / "page.html"}, "--out must end in .md"),
        ({"sweep": ROOT / "no"}, "--sweep .* is not a folder"),
        ({"sweep": ROOT / "docs"}, "holds no control"),
        ({"study": ROOT / "docs"}, "holds no runs"),
    ],
)
def test_what_cannot_work_is_refused(config, change, message):
    with pytest.raises(UserError, match=message):
        measure_all(replace(config, **change))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holdout": 2}, "control and other cannot be compared: --holdout 1 and 2"),
        ({"lr": 0.5}, "cannot be compared: --lr 0.01 and 0.5"),
        ({"q_weight": 0}, "must hold one control, w = 0, and holds 2"),
    ],
)
def test_runs_that_differ_in_more_than_the_loss_are_not_compared(
    config, tmp_path, folder, photographs, changes, message
):
    study = tmp_path / "study"
    (study / "control").mkdir(parents=True)
    source = folder / "study" / "control" / "weights.safetensors"
    (study / "control" / source.name).write_bytes(source.read_bytes())
    start = folder / "weights" / "unet_mae.safetensors"
    words = {"photographs": [photographs], "weights": start, **RUN, "q_weight": 0.1, **changes}
    train(FinetuneConfig(out=study / "other", **words))
    with pytest.raises(UserError, match=message):
        measure_all(replace(config, study=study))


def changed_card(source, target, change):
    """A copy of weights whose card a function has changed."""
    tensors, card = load_weights(source)
    change(card)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(serialised(tensors, card))


def test_a_run_of_an_earlier_version_lacks_what_came_later_and_is_alike(config, folder, tmp_path):
    def earlier(card):
        for option in ("jpeg", "light", "vary", "only"):
            del card.training["config"][option]

    study = tmp_path / "study"
    for path in (folder / "study").glob("*/weights.safetensors"):
        change = earlier if path.parent.name == "control" else lambda card: None
        changed_card(path, study / path.parent.name / path.name, change)
    assert measure_all(replace(config, study=study)).study is not None

    def varied(card):
        card.training["config"]["vary"] = True

    for path in (folder / "study").glob("*/weights.safetensors"):
        changed_card(path, study / path.parent.name / path.name, varied)
    with pytest.raises(UserError, match="--study compares runs on one blur without more; these have --vary"):
        measure_all(replace(config, study=study))


def test_an_unfinished_run_is_no_result(config, folder, tmp_path):
    def stop(card):
        card.training["steps"] = 1

    for run_folder in (folder / "sweep").glob("w_*"):
        source = run_folder / "weights.safetensors"
        changed_card(source, tmp_path / "sweep" / run_folder.name / source.name, stop)
    with pytest.raises(UserError, match="unfinished run: step 1 of 2"):
        measure_all(replace(config, sweep=tmp_path / "sweep"))


def test_a_sweep_is_told_by_its_cards_and_not_by_its_folders(config, folder, tmp_path):
    source = folder / "sweep" / "w_0" / "weights.safetensors"
    changed_card(source, tmp_path / "sweep" / "w_0" / source.name, lambda card: None)
    changed_card(source, tmp_path / "sweep" / "w_0_old" / source.name, lambda card: None)
    with pytest.raises(UserError, match="not of one sweep"):
        measure_all(replace(config, sweep=tmp_path / "sweep"))


def test_photographs_that_the_start_has_seen_are_no_validation(config, folder, tmp_path, monkeypatch):
    def other_seed(card):
        card.training["config"]["seed"] = 7

    weights = tmp_path / "weights"
    for path in (folder / "weights").iterdir():
        changed_card(path, weights / path.name, other_seed)
    monkeypatch.setattr("model.shipped.FOLDER", weights)
    with pytest.raises(UserError, match="kept different photographs from training: --seed 0 and 7"):
        measure_all(config)

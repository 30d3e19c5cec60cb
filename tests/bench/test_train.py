"""The training benchmark: what it records, and that the two ways it compares do the same."""

import numpy as np
import pytest
import torch

from bench import record, train
from bench.__main__ import main
from model.data.blur import box_blur
from model.data.luma_set import LumaSet
from model.training.config import FinetuneConfig
from model.training.losses import build_loss


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    words = ["--device", "cpu", "--batch", "2", "--crop", "32", "--seconds", "0.5", "--workers", "0"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main(["train", *words, "--curve", "5", "--out", str(folder)]) == 0
    torch.set_num_threads(threads)
    return folder


def test_record_holds_every_way_and_agrees_with_itself(recorded):
    rows, machine = record.read(recorded / "train_cpu.csv", train.Speed)
    assert [(row.provider, row.loss) for row in rows] == [
        (provider, loss) for loss in ("mae", "mae_q") for provider in ("plain", "trainer")
    ]
    for row in rows:
        assert row.crops_per_s == pytest.approx(1e3 * row.batch / row.ms_p50, rel=1e-4)
        assert row.stage_minutes == pytest.approx(13.44e6 / row.crops_per_s / 60, rel=1e-4)
        assert row.loss_share == pytest.approx(row.loss_ms / row.ms_p50, rel=1e-4)
        assert row.rounds >= 3
    text = (recorded / "train_cpu.md").read_text()
    assert machine.device == "cpu" and "both stages of the paper" in text


def test_curve_is_the_log_of_a_run(recorded):
    lines = (recorded / "train_curve_cpu.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "1", "2", "3", "4", "5"]
    assert "<svg" in (recorded / "train_curve_cpu.html").read_text()


def test_plain_crops_are_blurred_as_the_trainers_are():
    image = np.random.default_rng(0).integers(256, size=(40, 50), dtype=np.uint8)
    crops = iter(train._PlainCrops(LumaSet.from_images(["noise"], [image]), 16))
    for _ in range(5):
        blurred, sharp = ((255 * one).round().to(torch.uint8) for one in next(crops))
        assert torch.equal(blurred[None], box_blur(sharp[None], 5))


def test_plain_loss_is_the_trainers():
    restored, sharp = torch.rand(2, 4, 1, 32, 32)
    ours = build_loss(FinetuneConfig(q_weight=train.WEIGHT))
    torch.testing.assert_close(train._plain_loss("mae_q")(restored, sharp), ours(restored, sharp)[0])
    torch.testing.assert_close(train._plain_loss("mae")(restored, sharp), (restored - sharp).abs().mean())

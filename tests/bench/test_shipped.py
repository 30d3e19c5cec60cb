"""The record of the shipped weights, made with tiny networks in their place."""

from __future__ import annotations

import csv

import torch
from PIL import Image

from bench.__main__ import main
from model import shipped
from model.networks import build_network
from model.weights import Card, save_weights
from tests.photographs import scikit_image_photograph

TINY = {"widths": [4, 8], "depth": 1}


def test_record_and_page_hold_the_same_figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    config = {"crop": 64, "blur": "box:5"}
    for seed, name in enumerate((shipped.MAE, shipped.MAE_Q)):
        torch.manual_seed(seed)
        network = build_network("unet", {**TINY, "output_gain": 0.2})
        training = {"steps": 1, "crops": 2, "seconds": 3.0, "device": "cpu", "config": config}
        loss = {"name": "mae - w q", "weight": seed * 0.1}
        card = Card("unet", dict(TINY), loss=loss, training=training)
        save_weights(tmp_path / "weights" / f"{name}.safetensors", network, card)
    for name in ("kodak", "bsds500"):
        (tmp_path / name).mkdir()
        with Image.open(scikit_image_photograph("astronaut.png")) as picture:
            picture.crop((100, 0, 260, 140)).save(tmp_path / name / "one.png")
    words = ["shipped", "--data", tmp_path, "--limit", "1", "--page", tmp_path / "page.md", "--out", tmp_path]
    assert main([str(word) for word in words]) == 0
    with (tmp_path / "shipped_cpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # blurred and the two networks on both sets, and none of the paper's rows.
    assert [(row["data"], row["method"]) for row in rows] == [
        (data, method) for data in ("kodak", "bsds500") for method in ("blurred", shipped.MAE, shipped.MAE_Q)
    ]
    record, page = (tmp_path / "shipped_cpu.md").read_text(), (tmp_path / "page.md").read_text()
    for row in rows:
        assert f"{float(row['psnr']):.2f}" in record
        assert f"{float(row['psnr']):.2f}" in page

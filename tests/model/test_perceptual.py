"""LPIPS: published distances where the weights are at hand, and plain words where they are not."""

import numpy as np
import pytest
from PIL import Image

from model.errors import UserError
from model.evaluation.perceptual import CHECKPOINT, Lpips, LpipsUnavailable
from tests.photographs import data_folder


def test_published_distances():
    folder = data_folder("lpips_weights")
    distance = Lpips(folder)
    reference, *others = (
        np.asarray(Image.open(folder / f"ex_{name}.png").convert("RGB")) for name in ("ref", "p0", "p1")
    )
    # The package prints five digits.
    assert [distance(reference, other) for other in others] == pytest.approx([0.72188, 0.13757], abs=6e-6)
    assert distance(reference, reference) == 0


def test_luma_is_shown_as_three_equal_channels():
    distance = Lpips(data_folder("lpips_weights"))
    images = [np.random.default_rng(seed).integers(256, size=(64, 64), dtype=np.uint8) for seed in (0, 1)]
    colour = [np.stack([image] * 3, axis=2) for image in images]
    assert distance(*images) == distance(*colour) > 0


def test_without_weights_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(LpipsUnavailable, match=CHECKPOINT):
        Lpips()


def test_folder_without_the_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no readable alexnet_features\.npz"):
        Lpips(tmp_path)
    (tmp_path / "alexnet_features.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"holds no readable alexnet_features\.npz"):
        Lpips(tmp_path)


def test_arrays_of_another_network_are_refused(tmp_path):
    np.savez(
        tmp_path / "alexnet_features.npz", **{"features.0.weight": np.zeros((1, 1, 1, 1), dtype=np.float32)}
    )
    with pytest.raises(UserError, match="do not fit"):
        Lpips(tmp_path)

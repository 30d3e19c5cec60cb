"""Denoisers, each against another computation of the same or what it must do."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from scipy.ndimage import median_filter

from model.classical.blur import KernelBlur
from model.classical.denoisers import DENOISERS, Bm3d, DctThreshold, Drunet, Median, Network, NonLocalMeans
from model.errors import UserError
from model.networks import build_network
from model.torchvision_import import import_torchvision
from model.weights import Card, load_network, save_weights
from tests.model.classical.conftest import decibels


@pytest.fixture(scope="module")
def noisy(camera):
    noise = torch.randn(camera.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (camera + 20 / 255 * noise).clamp(0, 1)


@pytest.mark.parametrize("name", [name for name in DENOISERS if name not in ("bm3d", "drunet")])
def test_noise_is_removed(camera, noisy, name):
    denoised = DENOISERS[name](sigma=20)(noisy)
    assert (denoised.dtype, denoised.shape) == (noisy.dtype, noisy.shape)
    assert decibels(denoised, camera) > decibels(noisy, camera) + 2


def test_median_is_scipy_s(noisy):
    for size in (3, 5):
        expected = median_filter(noisy[1, 0].numpy(), size, mode="mirror")
        assert np.array_equal(Median(size)(noisy)[1, 0].numpy(), expected)


def test_dct_thresholding_is_that_of_every_block_by_itself(noisy):
    picture = noisy[0, 0, :20, :18].numpy()
    padded = np.pad(picture, 7, "reflect")
    total = np.zeros_like(padded)
    for top in range(padded.shape[0] - 7):
        for left in range(padded.shape[1] - 7):
            values = dctn(padded[top : top + 8, left : left + 8], norm="ortho")
            mean = values[0, 0]
            values[np.abs(values) < 3 * 20 / 255] = 0
            values[0, 0] = mean
            total[top : top + 8, left : left + 8] += idctn(values, norm="ortho")
    denoised = DctThreshold(sigma=20)(torch.from_numpy(picture)[None, None])
    assert np.allclose(denoised[0, 0].numpy(), total[7:-7, 7:-7] / 64, atol=1e-5)


def test_without_noise_nothing_is_changed(noisy):
    assert torch.allclose(DctThreshold(sigma=0)(noisy), noisy, atol=1e-6)
    assert torch.equal(NonLocalMeans(sigma=0)(noisy), noisy)
    assert torch.equal(Median(1)(noisy), noisy)


def test_a_network_sees_noise_of_the_level_it_was_trained_for(noisy, tiny_weights):
    network = load_network(tiny_weights)[0].eval()
    with torch.inference_mode():
        expected = network(noisy.float() * 5 / 20) * 20 / 5
    assert torch.allclose(Network(tiny_weights, sigma=20, trained=5)(noisy).float(), expected, atol=1e-6)


def test_bm3d_says_what_is_missing(noisy, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bm3d", None)
    with pytest.raises(UserError, match="pip install bm3d"):
        Bm3d(20)(noisy)


def test_drunet_is_deepinv_s(noisy, tmp_path):
    import_torchvision()
    models = pytest.importorskip("deepinv.models")
    torch.manual_seed(0)
    network = models.DRUNet(in_channels=1, out_channels=1, pretrained=None).eval()
    torch.save(network.state_dict(), tmp_path / "drunet.pth")
    with torch.no_grad():
        expected = network(noisy[:1].float(), 20 / 255)
    denoised = Drunet(20, str(tmp_path / "drunet.pth"))(noisy[:1])
    torch.testing.assert_close(denoised.float(), expected)
    with pytest.raises(UserError, match="no weights for drunet"):
        Drunet(20, str(tmp_path / "nowhere.pth"))(noisy)


def test_drunet_says_what_is_missing(noisy, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "deepinv.models", None)
    with pytest.raises(UserError, match="pip install deepinv"):
        Drunet(20, "another file")(noisy)


def test_impossible_values_are_refused():
    for build, message in (
        (lambda: Median(4), "size must be odd and positive, got 4"),
        (lambda: DctThreshold(sigma=float("nan")), "sigma must be at least 0, got nan"),
        (lambda: NonLocalMeans(patch=0), "patch must be at least 1, got 0"),
        (lambda: Network("x", sigma=0), "sigma must be positive, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            build()


def test_a_denoiser_takes_the_place_of_a_method(noisy):
    """The blur that it is handed is not looked at."""
    assert torch.equal(Median()(noisy, KernelBlur.box(9)), Median()(noisy))


def test_the_shipped_network_removes_the_noise_it_was_trained_for(camera):
    noise = torch.randn(camera.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    noisy = camera + 3.25 / 255 * noise
    # 1.624e-4 is its variance on [0, 1]; the card says so, and nothing has to be scaled.
    assert decibels(Network(sigma=3.25)(noisy), camera) > decibels(noisy, camera) + 1.5
    assert decibels(Network(sigma=3.25)(noisy), camera) > decibels(NonLocalMeans(sigma=3.25)(noisy), camera)


def test_weights_of_another_task_are_no_denoiser(noisy, tiny_weights):
    with pytest.raises(UserError, match="was not trained on noise; give the sigma it is for"):
        Network(tiny_weights, sigma=20)(noisy)


def test_weights_of_many_noises_are_told_which(noisy, tmp_path):
    card = Card("dncnn", training={"config": {"noise": 1e-4, "vary": True}})
    save_weights(tmp_path / "many.safetensors", build_network("dncnn"), card)
    with pytest.raises(UserError, match="was not trained on noise of one sigma; give the sigma it is for"):
        Network(tmp_path / "many.safetensors", sigma=20)(noisy)
    assert Network(tmp_path / "many.safetensors", sigma=20, trained=2.55)(noisy).shape == noisy.shape

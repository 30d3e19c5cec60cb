"""The metrics of the tables, each against its definition or another library."""

import numpy as np
import pytest
import torch
from PIL import Image

from model.data.blur import box_blur
from model.evaluation.metrics import psnr, quantised, sharpness_q, sharpness_qs, ssim
from model.torchvision_import import import_torchvision
from qkernel import q_metric
from tests.photographs import scikit_image_photograph


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    sharp = np.array(Image.open(scikit_image_photograph("camera.png")))[100:228, 180:308]
    return sharp, box_blur(torch.from_numpy(sharp)[None, None])[0, 0].numpy()


def test_psnr_is_its_formula(pair):
    sharp, blurred = pair
    error = np.mean((sharp.astype(float) - blurred) ** 2)
    assert psnr(sharp, blurred) == pytest.approx(10 * np.log10(255**2 / error), rel=1e-9)
    assert psnr(sharp, sharp) == float("inf")


def test_ssim_is_tensorflow_s(pair):
    """By hand: an 11 x 11 Gaussian of sigma 1.5, only where the whole window lies inside."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        rows = np.lib.stride_tricks.sliding_window_view(values, 11, axis=0) @ window
        return np.lib.stride_tricks.sliding_window_view(rows, 11, axis=1) @ window

    a, b = (image.astype(float) for image in pair)
    variances = mean(a * a) - mean(a) ** 2 + mean(b * b) - mean(b) ** 2
    covariance = mean(a * b) - mean(a) * mean(b)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean(a) * mean(b) + c1) * (2 * covariance + c2)
    similarity /= (mean(a) ** 2 + mean(b) ** 2 + c1) * (variances + c2)
    assert ssim(*pair) == pytest.approx(similarity.mean(), abs=1e-9)
    assert ssim(pair[0], pair[0]) == 1


@pytest.mark.parametrize("definition", ["zhu2010", "mmsp2024", "pythonq"])
def test_q_is_the_library_s_on_unit_range(pair, definition):
    sharp, blurred = pair
    expected = q_metric(torch.from_numpy(sharp / 255)[None, None], definition=definition)
    assert sharpness_q(sharp, definition) == pytest.approx(expected.item(), rel=1e-5)
    assert sharpness_q(blurred, definition) < sharpness_q(sharp, definition)


def test_q_of_many_pictures_is_that_of_each(pair):
    assert sharpness_qs(pair, "pythonq") == pytest.approx([sharpness_q(one, "pythonq") for one in pair])
    assert sharpness_qs([], "pythonq") == []


def test_torchmetrics_agrees(pair):
    """Another library's PSNR, and its map of SSIM where the whole window lies inside.

    Its mean (1.9) counts windows that hang over a mirrored border too; ours and TensorFlow's do not.
    """
    # It imports torchvision, which needs help beside a CPU build of torch.
    import_torchvision()
    torchmetrics = pytest.importorskip("torchmetrics.functional.image")
    sharp, blurred = (torch.from_numpy(image)[None, None].double() / 255 for image in pair)
    theirs = torchmetrics.peak_signal_noise_ratio(blurred, sharp, data_range=1.0)
    assert psnr(*pair) == pytest.approx(float(theirs), abs=1e-4)
    _, everywhere = torchmetrics.structural_similarity_index_measure(
        blurred, sharp, gaussian_kernel=True, sigma=1.5, data_range=1.0, return_full_image=True
    )
    assert everywhere.shape == blurred.shape
    assert ssim(*pair) == pytest.approx(float(everywhere[..., 5:-5, 5:-5].mean()), abs=1e-7)


def test_predictions_are_clipped_and_truncated_where_asked():
    values = torch.tensor([-0.3, 0.999 / 255, 1.0 / 255, 254.999 / 255, 1.0, 7.0], dtype=torch.float64)
    assert quantised(values[None, None, None], "truncate")[0].tolist() == [0, 0, 1, 254, 255, 255]


def test_predictions_are_clipped_and_rounded():
    values = torch.tensor([-0.3, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0, 7.0])
    assert quantised(values[None, None, None])[0].tolist() == [0, 0, 0, 1, 255, 255, 255]

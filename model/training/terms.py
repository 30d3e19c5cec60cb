"""The terms that losses are summed from: (restored, sharp) -> scalar, over N x C x H x W in [0, 1]."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import UserError
from model.evaluation.perceptual import Lpips, LpipsUnavailable
from qkernel import QLoss

if TYPE_CHECKING:
    from model.training.config import TrainConfig

__all__ = [
    "CHARBONNIER_EPS",
    "Charbonnier",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Perceptual",
    "Sharpness",
    "SobelDifference",
    "StructuralDissimilarity",
    "build_term",
]

# In the pixels' units, as MAEQLoss.
CHARBONNIER_EPS = 1e-3


class MeanAbsoluteError(nn.Module):
    """The mean of |restored - sharp|."""

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        return F.l1_loss(restored, sharp)


class MeanSquaredError(nn.Module):
    """The mean of (restored - sharp)^2."""

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        return F.mse_loss(restored, sharp)


class Charbonnier(nn.Module):
    """The mean of sqrt((restored - sharp)^2 + eps^2), a mean absolute error that is smooth at 0.

    Args:
        eps: in the pixels' units.

    Source: Charbonnier et al., ICIP 1994.
    """

    def __init__(self, eps: float = CHARBONNIER_EPS) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        return ((restored - sharp).square() + self.eps**2).sqrt().mean()


class Sharpness(nn.Module):
    """The sharpness metric Q of the restored pictures, which losses subtract; the sharp ones do not matter.

    Args:
        definition, offset, eps: see `qkernel.QLoss`.
    """

    def __init__(self, definition: str, offset: str | tuple[int, int] = (0, 0), eps: float = 0.0) -> None:
        super().__init__()
        self.loss = QLoss(weight=1.0, definition=definition, offset=offset, eps=eps)

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        return -self.loss(restored)


class StructuralDissimilarity(nn.Module):
    """1 - SSIM with a Gaussian window of 11 x 11, sigma 1.5, data range 1; from 0 (equal) to 2.

    SSIM is averaged over the pixels whose window lies inside the picture, and over channels, as
    scikit-image's (gaussian_weights, sigma 1.5, no sample covariance) is.

    Raises:
        ValueError: for pictures with a side below 11 pixels.

    Source: Wang et al., IEEE TIP 13(4), 2004.
    """

    def __init__(self, size: int = 11, sigma: float = 1.5) -> None:
        super().__init__()
        places = torch.arange(size, dtype=torch.float64) - size // 2
        window = torch.exp(-(places**2) / (2 * sigma**2))
        self._window = window / window.sum()
        # No buffer: not every device that pictures lie on has float64.
        self._windows: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        size = len(self._window)
        if min(restored.shape[-2:]) < size:
            raise ValueError(f"SSIM needs pictures of at least {size} pixels, got {tuple(restored.shape)}")
        # Variance does not change with the mean, and about a mean near 0 it loses fewer digits.
        x, y = (one.flatten(0, 1)[:, None] - 0.5 for one in (restored, sharp))
        means = self._blurred(torch.cat([x, y, x * x, y * y, x * y]))
        x_mean, y_mean, xx, yy, xy = means.chunk(5)
        x_variance, y_variance, covariance = xx - x_mean**2, yy - y_mean**2, xy - x_mean * y_mean
        x_mean, y_mean = x_mean + 0.5, y_mean + 0.5
        small, smaller = 0.01**2, 0.03**2
        alike = (2 * x_mean * y_mean + small) * (2 * covariance + smaller)
        total = (x_mean**2 + y_mean**2 + small) * (x_variance + y_variance + smaller)
        return 1 - (alike / total).mean()

    def _blurred(self, images: Tensor) -> Tensor:
        place = images.device, images.dtype
        if place not in self._windows:
            self._windows[place] = self._window.to(images.dtype).to(images.device)
        window = self._windows[place]
        return F.conv2d(F.conv2d(images, window[None, None, :, None]), window[None, None, None, :])


class SobelDifference(nn.Module):
    """The mean absolute difference of the Sobel gradients, horizontal and vertical, per pixel.

    The operators are divided by 8, so that a ramp of slope 1 has gradient 1. Only pixels with all neighbours
    are taken: no border is made up.

    Raises:
        ValueError: for pictures with a side below 3 pixels.
    """

    operators: Tensor

    def __init__(self) -> None:
        super().__init__()
        horizontal = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        operators = torch.stack([horizontal, horizontal.T])[:, None]
        self.register_buffer("operators", operators, persistent=False)

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        if min(restored.shape[-2:]) < 3:
            raise ValueError(f"Sobel needs pictures of at least 3 pixels, got {tuple(restored.shape)}")
        # The operators are linear: the difference of gradients is the gradient of the difference.
        difference = (restored - sharp).flatten(0, 1)[:, None]
        return F.conv2d(difference, self.operators.to(difference.dtype)).abs().mean()


class Perceptual(nn.Module):
    """LPIPS with AlexNet, version 0.1; luma is shown to it as three equal channels.

    Args:
        metric: holds the network, whose weights are not trained.

    Source: Zhang et al., CVPR 2018.
    """

    def __init__(self, metric: Lpips) -> None:
        super().__init__()
        self.network = metric.network.requires_grad_(False)

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        seen = (one.expand(-1, 3, -1, -1) * 2 - 1 for one in (restored, sharp))
        return self.network(*seen).mean()


def _sharpness(config: "TrainConfig") -> nn.Module:
    offset = "random" if config.q_offset == "random" else (0, 0)
    return Sharpness(config.q_definition, offset, config.q_eps)


def _perceptual(config: "TrainConfig") -> nn.Module:
    try:
        return Perceptual(Lpips(config.lpips_weights))
    except LpipsUnavailable as reason:
        raise UserError(f"--loss {config.loss}: {reason}") from None


_BUILDERS: dict[str, Callable[["TrainConfig"], nn.Module]] = {
    "l1": lambda config: MeanAbsoluteError(),
    "mse": lambda config: MeanSquaredError(),
    "charbonnier": lambda config: Charbonnier(),
    "q": _sharpness,
    "ssim": lambda config: StructuralDissimilarity(),
    "sobel": lambda config: SobelDifference(),
    "lpips": _perceptual,
}


def build_term(name: str, config: "TrainConfig") -> nn.Module:
    """The term of that name, one of `model.training.formula.TERMS`, with the configuration's settings of it.

    Raises:
        UserError: if LPIPS is asked for and its weights are not on this machine.
    """
    return _BUILDERS[name](config)

"""Denoisers by name, for RED to regularise with and for Q to choose the parameters of."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.classical.blur import BlackBox
from model.classical.method import Knows, at_least
from model.errors import UserError
from model.shipped import FOLDER
from model.torchvision_import import import_torchvision
from model.weights import Card, load_network

__all__ = ["DENOISERS", "Bm3d", "DctThreshold", "Denoiser", "Drunet", "Median", "Network", "NonLocalMeans"]


class Denoiser(Protocol):
    """A frozen dataclass; `sigma` is the standard deviation of the noise it removes, white being 255."""

    sigma: float

    def __call__(self, blurred: Tensor, blur: BlackBox | None = None) -> Tensor:
        """Denoise N x 1 x H x W in [0, 1]; the blur is not looked at."""
        ...


@dataclass(frozen=True)
class Median:
    """The median of a square window, mirrored border: the simplest of all, the same at every noise level."""

    knows: ClassVar[Knows] = Knows.NOTHING

    size: int = 3
    """Side of the window in pixels, odd."""
    sigma: float = 0.0
    """Not looked at."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"size must be odd and positive, got {self.size}")

    def __call__(self, blurred: Tensor, blur: BlackBox | None = None) -> Tensor:
        """Denoise N x 1 x H x W in [0, 1]."""
        radius = self.size // 2
        padded = F.pad(blurred, (radius,) * 4, mode="reflect")
        windows = padded.unfold(-2, self.size, 1).unfold(-2, self.size, 1)
        return windows.flatten(-2).median(dim=-1).values


@dataclass(frozen=True)
class DctThreshold:
    """Hard thresholding of the cosine transform of every 8 x 8 block, the overlapping results averaged.

    Source: the translation-invariant transform of Coifman and Donoho, 1995, with blocks as in Yu and Sapiro,
    "DCT image denoising", Image Processing On Line 1 (2011).
    """

    knows: ClassVar[Knows] = Knows.NOTHING

    sigma: float = 10.0
    """Standard deviation of the noise, white being 255."""
    threshold: float = 3.0
    """In units of sigma."""
    block: int = 8
    """Side of the blocks in pixels."""

    def __post_init__(self) -> None:
        at_least(0, "sigma", self.sigma)
        at_least(0, "threshold", self.threshold)
        at_least(2, "block", self.block)

    def __call__(self, blurred: Tensor, blur: BlackBox | None = None) -> Tensor:
        """Denoise N x 1 x H x W in [0, 1]; computed in float32, which is far finer than any noise."""
        margin = self.block - 1
        padded = F.pad(blurred.to(torch.float32), (margin,) * 4, mode="reflect")
        basis = _cosines(self.block, padded.device)
        coefficients = basis @ F.unfold(padded, self.block)
        small = coefficients.abs() < self.threshold * self.sigma / 255
        small[:, 0] = False  # the mean of a block is no noise
        blocks = basis.T @ coefficients.masked_fill_(small, 0)
        total = F.fold(blocks, padded.shape[-2:], self.block)
        return (total[..., margin:-margin, margin:-margin] / self.block**2).to(blurred.dtype)


def _cosines(block: int, device: torch.device) -> Tensor:
    """The orthonormal basis of the two-dimensional cosine transform: block^2 functions x block^2 pixels."""
    places = torch.arange(block, dtype=torch.float64)
    one = torch.cos(math.pi / block * places[:, None] * (places[None] + 0.5)) * math.sqrt(2 / block)
    one[0] /= math.sqrt(2)
    return torch.kron(one, one).to(device, torch.float32)


@dataclass(frozen=True)
class NonLocalMeans:
    """Means over pixels whose surroundings look alike; scikit-image's, one picture at a time on the CPU.

    Source: Buades, Coll and Morel, CVPR 2005.
    """

    knows: ClassVar[Knows] = Knows.NOTHING

    sigma: float = 10.0
    """Standard deviation of the noise, white being 255."""
    strength: float = 0.8
    """How unlike surroundings may be, in units of sigma."""
    patch: int = 5
    """Side of the surroundings in pixels."""
    distance: int = 6
    """How far to look, in pixels."""

    def __post_init__(self) -> None:
        for name, smallest in (("sigma", 0), ("strength", 0), ("patch", 1), ("distance", 1)):
            at_least(smallest, name, getattr(self, name))

    def __call__(self, blurred: Tensor, blur: BlackBox | None = None) -> Tensor:
        """Denoise N x 1 x H x W in [0, 1]."""
        from skimage.restoration import denoise_nl_means

        if self.sigma * self.strength == 0:
            return blurred
        sigma = self.sigma / 255
        return _one_by_one(
            blurred,
            lambda picture: denoise_nl_means(
                picture,
                patch_size=self.patch,
                patch_distance=self.distance,
                h=self.strength * sigma,
                sigma=sigma,
                fast_mode=True,
            ),
        )


@dataclass(frozen=True)
class Bm3d:
    """Block matching and 3-D filtering, by its authors' package `bm3d`, which is not installed with this one.

    Source: Dabov, Foi, Katkovnik and Egiazarian, IEEE TIP 16(8), 2007; Mäkinen, Azzari and Foi, 2020.
    """

    knows: ClassVar[Knows] = Knows.NOTHING

    sigma: float = 10.0
    """Standard deviation of the noise, white being 255."""

    def __post_init__(self) -> None:
        at_least(0, "sigma", self.sigma)

    def __call__(self, blurred: Tensor, blur: BlackBox | None = None) -> Tensor:
        """Denoise N x 1 x H x W in [0, 1].

        Raises:
            UserError: if the package is missing.
        """
        try:
            import bm3d
        except ImportError as error:
            raise UserError(
                "bm3d needs its authors' package: pip install bm3d (free for non-commercial use)"
            ) from error
        return _one_by_one(blurred, lambda picture: bm3d.bm3d(picture, self.sigma / 255))


@dataclass(frozen=True)
class Drunet:
    """A large U-Net that is told the noise level, by the library `deepinv`, which is not installed with this.

    Source: Zhang, Li, Zuo, Zhang, Van Gool and Timofte, IEEE TPAMI 44(10), 2022.
    """

    knows: ClassVar[Knows] = Knows.NOTHING

    sigma: float = 10.0
    """Standard deviation of the noise, white being 255."""
    weights: str = "download"
    """A file of weights for luma; `download` fetches deepinv's once."""

    def __post_init__(self) -> None:
        at_least(0, "sigma", self.sigma)

    @torch.inference_mode()
    def __call__(self, blurred: Tensor, blur: BlackBox | None = None) -> Tensor:
        """Denoise N x 1 x H x W in [0, 1], in float32.

        Raises:
            UserError: if the library is missing, or the weights cannot be had.
        """
        network = _drunet(self.weights, blurred.device)
        return network(blurred.to(torch.float32), self.sigma / 255).to(blurred.dtype)


@cache
def _drunet(weights: str, device: torch.device) -> nn.Module:
    try:
        import_torchvision()
        from deepinv.models import DRUNet
    except ImportError as error:
        raise UserError(f"drunet needs the library deepinv: pip install deepinv ({error})") from error
    try:
        return DRUNet(in_channels=1, out_channels=1, pretrained=weights, device=device).eval()
    except Exception as error:
        # From a missing file to a missing network, each library it uses raises its own.
        raise UserError(f"no weights for drunet ({weights}): {' '.join(str(error).split())}") from error


def _one_by_one(pictures: Tensor, function) -> Tensor:
    arrays = pictures[:, 0].to("cpu", torch.float64).numpy()
    results = np.stack([function(array) for array in arrays])
    return torch.from_numpy(results)[:, None].to(pictures)


SHIPPED = FOLDER / "dncnn.safetensors"


@dataclass(frozen=True)
class Network:
    """A denoising network of ours, used at any noise level by scaling the picture.

    f(x) = (sigma / trained) network(x trained / sigma), so the noise has the level it was trained for.

    Source: Romano, Elad and Milanfar, SIAM J. Imaging Sciences 10(4), 2017, who do so with TNRD.
    """

    knows: ClassVar[Knows] = Knows.NOTHING

    weights: Path = SHIPPED
    """A weights file of `python -m model train --blur none --noise VARIANCE`; without one, the DnCNN that
    comes with this repository."""
    sigma: float = 5.0
    """Standard deviation of the noise, white being 255."""
    trained: float = 0.0
    """The sigma that the network was trained for; 0: what the weights say."""

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")
        at_least(0, "trained", self.trained)

    @property
    def files(self) -> tuple[Path, ...]:
        """What the result depends on beside the parameters."""
        return (self.weights,)

    @torch.inference_mode()
    def __call__(self, blurred: Tensor, blur: BlackBox | None = None) -> Tensor:
        """Denoise N x 1 x H x W in [0, 1], in float32."""
        network, card = _loaded(self.weights, blurred.device)
        scale = (self.trained or _trained(card, self.weights)) / self.sigma
        return (network(blurred.to(torch.float32) * scale) / scale).to(blurred.dtype)


def _trained(card: Card, path: Path) -> float:
    """The sigma of the noise that weights were trained to remove, white being 255."""
    config = card.training.get("config", {})
    variance = config.get("noise", 0)
    if not variance > 0 or config.get("vary"):
        what = "on noise of one sigma" if variance > 0 else "on noise"
        raise UserError(f"{path} was not trained {what}; give the sigma it is for: trained=SIGMA")
    return 255 * variance**0.5


_networks: dict[tuple[Path, int, torch.device], tuple[nn.Module, Card]] = {}


def _loaded(path: Path, device: torch.device) -> tuple[nn.Module, Card]:
    # A denoiser is called hundreds of times a picture. The time of change is part of the key: a file that is
    # written anew is another network.
    key = (path, path.stat().st_mtime_ns if path.is_file() else 0, device)
    if key not in _networks:
        _networks.clear()
        network, card = load_network(path)
        _networks[key] = network.to(device).eval(), card
    return _networks[key]


DENOISERS: dict[str, type[Denoiser]] = {
    "median": Median,
    "dct": DctThreshold,
    "nlm": NonLocalMeans,
    "dncnn": Network,
    "drunet": Drunet,
    "bm3d": Bm3d,
}
"""Denoisers by name; a new one is one class and one line here."""

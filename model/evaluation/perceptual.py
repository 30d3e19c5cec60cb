"""LPIPS with the AlexNet backbone, from weights that are on this machine; nothing is ever downloaded."""

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.errors import UserError
from model.torchvision_import import import_torchvision

__all__ = ["Lpips", "LpipsUnavailable"]

NPZ = "alexnet_features.npz"
CHECKPOINT = "alexnet-owt-7be5be79.pth"


class LpipsUnavailable(Exception):
    """LPIPS cannot be measured here; the message says why and what would help."""


class Lpips:
    """The LPIPS distance of luma pictures, AlexNet, version 0.1; grey is shown to it as three equal channels.

    Args:
        folder: holds alexnet_features.npz with the arrays features.{0,3,6,8,10}.{weight,bias}; without a
            folder, torchvision's cached checkpoint is taken.
        device: where it runs.

    Raises:
        LpipsUnavailable: if the package or the cached checkpoint is missing.
        UserError: if a folder is given and does not hold the right file.

    Source: Zhang et al., CVPR 2018; the `lpips` package.
    """

    def __init__(self, folder: Path | None = None, device: torch.device | str = "cpu") -> None:
        features = _features_from_npz(folder) if folder is not None else _features_from_cache()
        try:
            import_torchvision()
            import lpips
        except ImportError as error:
            raise LpipsUnavailable(f"{error}; `pip install lpips torchvision`") from error
        with warnings.catch_warnings():
            # The package calls torchvision and torch.load in their older manners.
            warnings.simplefilter("ignore")
            self.network: nn.Module = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        backbone = self.network.net
        wanted = {key: "features." + key.partition(".")[2] for key in backbone.state_dict()}
        try:
            backbone.load_state_dict({key: features[name] for key, name in wanted.items()})
        except (KeyError, RuntimeError) as error:
            raise UserError(f"the AlexNet weights in {folder or CHECKPOINT} do not fit: {error}") from error
        self.network = self.network.to(device).eval()
        self.device = device

    @torch.inference_mode()
    def __call__(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
        """The distance of two pictures, H x W luma or H x W x 3 RGB, uint8; 0 for equal ones."""
        return float(self.network(self._tensor(first), self._tensor(second)))

    def _tensor(self, picture: NDArray[np.uint8]) -> Tensor:
        rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        # torch.tensor copies, so that a read-only array, as Pillow gives, is no matter.
        pixels = torch.tensor(rgb, device=self.device)
        return pixels.permute(2, 0, 1)[None].to(torch.float32) / 127.5 - 1


def _features_from_npz(folder: Path) -> dict[str, Tensor]:
    try:
        with np.load(folder / NPZ) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError) as error:
        raise UserError(f"--lpips_weights {folder} holds no readable {NPZ}: {error}") from error


def _features_from_cache() -> dict[str, Tensor]:
    checkpoint = Path(torch.hub.get_dir()) / "checkpoints" / CHECKPOINT
    if not checkpoint.is_file():
        raise LpipsUnavailable(
            f"LPIPS needs AlexNet's weights: {checkpoint} is not there. Download it from "
            f"https://download.pytorch.org/models/{CHECKPOINT}, or give --lpips_weights FOLDER with {NPZ}"
        )
    return torch.load(checkpoint, map_location="cpu", weights_only=True)

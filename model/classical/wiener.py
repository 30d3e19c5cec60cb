"""The Wiener filter of scikit-image: what everyone tries first."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from model.classical.blur import KernelBlur
from model.classical.method import Knows

__all__ = ["Wiener"]


@dataclass(frozen=True)
class Wiener:
    """conj(H) y^ / (|H|^2 + balance |L|^2) with a Laplacian L, taking the border for circular.

    Source: scikit-image, `restoration.wiener`; Hunt 1973. Runs on the CPU, one picture at a time.
    """

    knows: ClassVar[Knows] = Knows.KERNEL

    balance: float = 0.01
    """Weight of smoothness; larger values bear more noise and foreign borders."""

    def __post_init__(self) -> None:
        if not self.balance > 0:
            raise ValueError(f"balance must be positive, got {self.balance}")

    def __call__(self, blurred: Tensor, blur: KernelBlur) -> Tensor:
        """Restore N x 1 x H x W in [0, 1]; the result is not clipped."""
        from skimage.restoration import wiener

        kernel = blur.kernel.cpu().numpy()
        pictures = blurred[:, 0].to("cpu", torch.float64).numpy()
        restored = np.stack([wiener(one, kernel, self.balance, clip=False) for one in pictures])
        return torch.from_numpy(restored)[:, None].to(blurred)

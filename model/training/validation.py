"""Validation: the network as it would be written, on photographs that are not trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data.crops import central_crop
from model.data.degradation import Degradation
from model.data.luma_set import LumaSet
from model.evaluation.metrics import psnr, quantised, sharpness_q, ssim
from model.networks.luma import show_luma, take_luma

__all__ = ["DIVERGED", "METRICS", "Score", "Validation", "table"]

METRICS = ("psnr", "ssim", "q")
# The paper's tables use this definition, whatever the loss uses.
Q_DEFINITION = "pythonq"


@dataclass(frozen=True)
class Score:
    """Means over the validation pictures."""

    psnr: float
    ssim: float
    q: float

    @classmethod
    def of(cls, sharp: list[NDArray[np.uint8]], pictures: list[NDArray[np.uint8]]) -> "Score":
        """Measure 8-bit pictures against the sharp ones."""
        rows = [
            (psnr(one, other), ssim(one, other), sharpness_q(other, Q_DEFINITION))
            for one, other in zip(sharp, pictures, strict=True)
        ]
        return cls(*(float(mean) for mean in np.mean(rows, axis=0)))


DIVERGED = Score(nan, nan, nan)
"""Stands for a run that has left no weights to validate."""


class Validation:
    """Central crops of photographs, degraded once, always in the same way.

    Args:
        images: the photographs; of a paired set the degraded ones are taken as they are.
        size: side of the crops.
        degradation: how crops are made worse.
        device: where the network is.
        seed: of the noise.
        batch: crops that are restored together.
        channels: 1, or 3 for a network that takes RGB and is shown luma three times.
    """

    def __init__(
        self,
        images: LumaSet,
        size: int,
        degradation: Degradation,
        device: torch.device,
        seed: int = 0,
        batch: int = 32,
        channels: int = 1,
    ) -> None:
        self.names, self.device, self.batch, self.channels = images.names, device, batch, channels
        self.sharp = [np.ascontiguousarray(central_crop(images.image(i), size)) for i in range(len(images))]
        if images.paired:
            worse = [central_crop(images.image(i, True), size) for i in range(len(images))]
            self.input = torch.from_numpy(np.stack(worse))[:, None].to(torch.float32) / 255
        else:
            crops = torch.from_numpy(np.stack(self.sharp))[:, None]
            self.input = degradation(crops, torch.Generator().manual_seed(seed))
        self.blurred = _pictures(self.input)
        self.before = Score.of(self.sharp, self.blurred)

    @torch.no_grad()
    def __call__(self, network: Callable[[Tensor], Tensor]) -> tuple[Score, list[NDArray[np.uint8]]]:
        """Restore and measure: the score, and the restored pictures."""
        restored = [
            take_luma(network(show_luma(part.to(self.device), self.channels)).float()).cpu()
            for part in self.input.split(self.batch)
        ]
        pictures = _pictures(torch.cat(restored))
        return Score.of(self.sharp, pictures), pictures

    def strips(self, pictures: list[NDArray[np.uint8]], count: int) -> list[NDArray[np.uint8]]:
        """Blurred, restored and sharp side by side, for the first photographs."""
        return [
            np.concatenate(parts, axis=1)
            for parts in list(zip(self.blurred, pictures, self.sharp, strict=True))[:count]
        ]


def _pictures(images: Tensor) -> list[NDArray[np.uint8]]:
    return [quantised(one[None]) for one in images]


def table(rows: dict[str, Score]) -> str:
    """Scores under each other, one row each."""
    width = max(map(len, rows))
    lines = [f"{'':{width}}   PSNR    SSIM      Q"]
    lines += [
        f"{name:{width}}  "
        + ("diverged" if isnan(one.psnr) else f"{one.psnr:6.3f}  {one.ssim:.4f}  {one.q:.4f}")
        for name, one in rows.items()
    ]
    return "\n".join(lines)

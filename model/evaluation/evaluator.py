"""Running methods over pairs and measuring what they give."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.evaluation.methods import Identity, Method
from model.evaluation.metrics import psnr, quantised, sharpness_q, ssim
from model.evaluation.perceptual import Lpips
from model.evaluation.protocol import Pair
from model.progress import ProgressBar

__all__ = ["METRICS", "Measurement", "evaluate"]

METRICS = ("psnr", "ssim", "q", "lpips", "seconds")


@dataclass(frozen=True)
class Measurement:
    """One method on one picture."""

    method: str
    image: str
    psnr: float
    ssim: float
    q: float
    lpips: float | None
    """None where LPIPS cannot be measured."""
    seconds: float
    """Time of restoring alone, after one run that is not counted; 0 for the blurred picture itself."""
    restored: NDArray[np.uint8]


def evaluate(
    methods: Sequence[Method], pairs: Sequence[Pair], q_definition: str, lpips: Lpips | None
) -> list[Measurement]:
    """Measure each method on each pair.

    Args:
        methods: their order is kept.
        pairs: sharp and blurred pictures.
        q_definition: definition of Q.
        lpips: the perceptual metric, or None to leave it out.

    Returns:
        One measurement for each method and pair, methods outermost.
    """
    results = []
    with ProgressBar("measuring", len(methods) * len(pairs), "pictures") as bar:
        for method in methods:
            warmed: set[tuple[int, ...]] = set()
            for pair in pairs:
                blurred = torch.from_numpy(pair.blurred)[None, None].to(torch.float32) / 255
                # The first run at a size pays for choosing kernels and for memory.
                if blurred.shape not in warmed:
                    method.restore(blurred)
                    warmed.add(blurred.shape)
                begun = time.perf_counter()
                # The copy to the CPU waits for the device.
                restored = method.restore(blurred).cpu()
                seconds = 0.0 if isinstance(method, Identity) else time.perf_counter() - begun
                picture = quantised(restored)
                results.append(
                    Measurement(
                        method=method.name,
                        image=pair.name,
                        psnr=psnr(pair.sharp, picture),
                        ssim=ssim(pair.sharp, picture),
                        q=sharpness_q(picture, q_definition),
                        lpips=lpips(pair.sharp, picture) if lpips else None,
                        seconds=seconds,
                        restored=picture,
                    )
                )
                bar.advance(detail=method.name)
    return results

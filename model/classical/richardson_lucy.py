"""The Richardson-Lucy iteration of scikit-image: astronomy's answer since 1972."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from model.classical.blur import KernelBlur
from model.classical.method import Knows, at_least

__all__ = ["RichardsonLucy"]


@dataclass(frozen=True)
class RichardsonLucy:
    """x <- x H'(y / Hx), the picture continued beyond its border as the blur does.

    scikit-image sees black beyond what it is given, so the margin is taken off again: four kernels wide.

    Source: scikit-image, `restoration.richardson_lucy`; Richardson 1972, Lucy 1974. Runs on the CPU, one
    picture at a time.
    """

    knows: ClassVar[Knows] = Knows.KERNEL

    iterations: int = 30
    """Multiplications."""

    def __post_init__(self) -> None:
        at_least(1, "iterations", self.iterations)

    def __call__(self, blurred: Tensor, blur: KernelBlur) -> Tensor:
        """Restore N x 1 x H x W in [0, 1]; the result lies in [0, 1]."""
        from skimage.restoration import richardson_lucy

        kernel = blur.kernel.cpu().numpy()
        margins = [
            min(4 * side, size - 1) for side, size in zip(kernel.shape, blurred.shape[-2:], strict=True)
        ]
        mode = {"circular": "wrap", "reflect": "reflect"}[blur.border]
        results = []
        for picture in blurred[:, 0].to("cpu", torch.float64).numpy():
            padded = np.pad(picture, [(margin, margin) for margin in margins], mode)
            # Without an epsilon, 0 / 0 on black would become NaN.
            restored = richardson_lucy(padded, kernel, self.iterations, filter_epsilon=1e-12)
            results.append(restored[margins[0] : -margins[0], margins[1] : -margins[1]])
        return torch.from_numpy(np.stack(results))[:, None].to(blurred)

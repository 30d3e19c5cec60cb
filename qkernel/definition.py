"""What Q is: the three published definitions and the numbers that select one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: Keeps the coherence (l1 - l2) / (l1 + l2 + COHERENCE_FLOOR) of a flat patch defined; part of the published
#: code.
COHERENCE_FLOOR = 1e-10

#: ITU-R BT.601 luma of an RGB triple, full range: the paper's luma.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Formula:
    """One published way to turn the gradients of a patch into its Q.

    With the eigenvalues l1 >= l2 of the structure tensor and the singular values s = sqrt(l):

    - ``gradient``: "central" (one-sided at the patch border) or "sobel" (3x3 / 8, mirrored border);
    - ``coherence`` R: "singular" (s1 - s2) / (s1 + s2) or "eigen" (l1 - l2) / (l1 + l2 + 1e-10);
    - ``value`` of an anisotropic patch: "singular" s1 (s1 - s2) / (s1 + s2) or "eigen" l1 R;
    - ``threshold``: "zhu" sqrt((1 - t) / (1 + t)) or "half" sqrt((1 - t) / 2), t = delta^(1 / (N^2 - 1)).
    """

    gradient: Literal["central", "sobel"]
    coherence: Literal["singular", "eigen"]
    value: Literal["singular", "eigen"]
    threshold: Literal["zhu", "half"]
    source: str


FORMULAS = {
    "zhu2010": Formula("central", "singular", "singular", "zhu", "Zhu and Milanfar, IEEE TIP 19(12), 2010"),
    "mmsp2024": Formula("sobel", "eigen", "eigen", "half", "the training code of the MMSP 2024 paper"),
    "pythonq": Formula("central", "eigen", "singular", "zhu", "the metric code of the MMSP 2024 paper"),
}


@dataclass(frozen=True)
class Definition:
    """A complete definition of Q: a published formula and its parameters.

    Args:
        name: "zhu2010" (Zhu and Milanfar's metric, eqs. 2-5 of the paper), "mmsp2024" (the released training
            code) or "pythonq" (the released metric code).
        patch_size: side N of the square patches in pixels, at least 3.
        delta: significance level of the coherence threshold, between 0 and 1 (exclusive).
        data_range: the value of white; pixels are divided by it.
        eps: smoothing of the singular values, in gradient per pixel and units of ``data_range``;
            0 is the published metric.

    Raises:
        TypeError, ValueError: for a parameter outside these ranges.
    """

    name: str = "zhu2010"
    patch_size: int = 8
    delta: float = 1e-3
    data_range: float = 1.0
    eps: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in FORMULAS:
            raise ValueError(f"unknown definition {self.name!r}: choose one of {', '.join(FORMULAS)}")
        if isinstance(self.patch_size, bool) or not isinstance(self.patch_size, int):
            raise TypeError(f"patch_size must be an int, not {self.patch_size!r}")
        if self.patch_size < 3:
            raise ValueError(f"patch_size must be at least 3, not {self.patch_size}")
        for name in ("delta", "data_range", "eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, not {value!r}")
        if not 0.0 < self.delta < 1.0:
            raise ValueError(f"delta must lie between 0 and 1 (exclusive), not {self.delta}")
        if not 0.0 < self.data_range < math.inf:
            raise ValueError(f"data_range must be positive and finite, not {self.data_range}")
        if not 0.0 <= self.eps < math.inf:
            raise ValueError(f"eps must be non-negative and finite, not {self.eps}")

    @property
    def formula(self) -> Formula:
        return FORMULAS[self.name]

    @property
    def threshold(self) -> float:
        """The coherence at or below which a patch counts as isotropic and contributes 0."""
        n = self.patch_size
        t = self.delta ** (1.0 / (n * n - 1))
        return math.sqrt((1 - t) / ((1 + t) if self.formula.threshold == "zhu" else 2))

    @property
    def smoothing(self) -> float:
        """e^2 = (eps N)^2, added to each eigenvalue."""
        return (self.eps * self.patch_size) ** 2

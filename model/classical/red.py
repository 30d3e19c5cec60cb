"""RED: regularisation by denoising, by fixed points (RED-FP) or by steepest descent (RED-SDM)."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from model.classical.blur import KernelBlur
from model.classical.denoisers import DENOISERS, Denoiser, Network
from model.classical.method import Knows, at_least
from model.classical.naming import nearest

__all__ = ["RedDescent", "RedFixedPoint"]

# Inner steps of RED-FP where there is no closed form, as in the published code; most need far fewer, because
# they start from the last iterate and stop at this residual, relative to the right-hand side.
_INNER_STEPS, _INNER_RESIDUAL = 200, 1e-6


@dataclass(frozen=True)
class _Red:
    """The objective of both: 1/(2 s^2) |Hx - y|^2 + (w/2) x'(x - f(x)) for a denoiser f.

    Defaults are the published ones for uniform blur, in grey levels; they do not depend on the range of the
    pixels as long as the denoiser's sigma does not either. The paper's denoiser, TNRD, is not to be had. Of
    those here non-local means does best on photographs that no table is made of: it leaves texture as it is,
    and there is no noise to remove.
    """

    knows: ClassVar[Knows] = Knows.KERNEL

    iterations: int
    weight: float = 0.02
    """w, the weight of the regulariser."""
    noise: float = 2**0.5
    """s, the assumed standard deviation of noise in the blurred picture, white being 255."""
    sigma: float = 3.25
    """The noise level that the denoiser is asked to remove, white being 255."""
    denoiser: str = "nlm"
    """A name (nlm, dncnn, dct, median, drunet, bm3d), or weights of a network trained on noise. nlm runs on
    the CPU; elsewhere dncnn is the fastest."""

    def __post_init__(self) -> None:
        at_least(0, "iterations", self.iterations)
        at_least(0, "weight", self.weight)
        for name in ("noise", "sigma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        self._denoiser()

    def _denoiser(self) -> Denoiser:
        if self.denoiser.endswith(".safetensors"):
            return Network(Path(self.denoiser), sigma=self.sigma)
        if self.denoiser not in DENOISERS:
            raise ValueError(f"no denoiser is called {self.denoiser!r}; {nearest(self.denoiser, DENOISERS)}")
        return DENOISERS[self.denoiser](sigma=self.sigma)

    @property
    def files(self) -> tuple[Path, ...]:
        """What the result depends on beside the parameters: the denoiser's weights."""
        return getattr(self._denoiser(), "files", ())

    def energy(self, x: Tensor, blurred: Tensor, blur: KernelBlur) -> Tensor:
        """The objective at x, one value for each of N pictures, in squared grey levels."""
        fidelity = (blur.unclipped()(x) - blurred).square().sum((1, 2, 3)) / self.noise**2
        smoothness = (x * (x - self._denoiser()(x))).sum((1, 2, 3))
        return 255**2 / 2 * (fidelity + self.weight * smoothness)


@dataclass(frozen=True)
class RedFixedPoint(_Red):
    """RED-FP: each step denoises and then solves (H'H / s^2 + w) x = H'y / s^2 + w f(x).

    The system is solved exactly by Fourier transform where the blur is circular, and elsewhere by steps along
    the residual of the best length; the iterate is clipped to [0, 1].

    Source: Romano, Elad and Milanfar, SIAM J. Imaging Sciences 10(4), 2017 (arXiv 1611.02862).
    """

    iterations: int = 200
    """Denoisings; the published code has 200."""

    def __call__(self, blurred: Tensor, blur: KernelBlur) -> Tensor:
        """Restore N x 1 x H x W in [0, 1], in its type."""
        blur, denoise = blur.unclipped(), self._denoiser()
        solve = _FourierSystem if blur.border == "circular" else _DescentSystem
        system = solve(blur, blurred, self.noise**-2, self.weight)
        constant = blur.adjoint(blurred) / self.noise**2
        x = blurred
        for _ in range(self.iterations):
            x = system.solve(constant + self.weight * denoise(x), x).clamp(0, 1)
        return x


@dataclass(frozen=True)
class RedDescent(_Red):
    """RED-SDM: steps of 2 / (|H|^2 / s^2 + w) against the gradient H'(Hx - y) / s^2 + w (x - f(x)), clipped.

    |H| is 1 for a circular blur, which is what the published code has. Mirroring counts pixels near the
    border more than once, so there |H| exceeds 1, and steps that long diverge (below the blurred picture).

    Source: Romano, Elad and Milanfar, SIAM J. Imaging Sciences 10(4), 2017 (arXiv 1611.02862).
    """

    iterations: int = 1500
    """Steps, with one denoising each; the published code has 1500."""

    def __call__(self, blurred: Tensor, blur: KernelBlur) -> Tensor:
        """Restore N x 1 x H x W in [0, 1], in its type."""
        blur, denoise = blur.unclipped(), self._denoiser()
        fidelity = self.noise**-2
        length = 2 / (blur.largest_gain(blurred) ** 2 * fidelity + self.weight)
        x = blurred
        for _ in range(self.iterations):
            gradient = blur.adjoint(blur(x) - blurred) * fidelity + self.weight * (x - denoise(x))
            x = (x - length * gradient).clamp(0, 1)
        return x


class _FourierSystem:
    """(a H'H + w) x = b for a circular blur, in closed form."""

    def __init__(self, blur: KernelBlur, like: Tensor, a: float, w: float) -> None:
        power = blur.transfer(*like.shape[-2:], like.device).abs() ** 2
        self.spectrum = (a * power + w).to(like.dtype)

    def solve(self, b: Tensor, start: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(b) / self.spectrum, s=b.shape[-2:])


class _DescentSystem:
    """(a H'H + w) x = b for any blur, by residual steps, each picture with its own length."""

    def __init__(self, blur: KernelBlur, like: Tensor, a: float, w: float) -> None:
        self.blur, self.a, self.w = blur, a, w

    def _apply(self, x: Tensor) -> Tensor:
        return self.a * self.blur.adjoint(self.blur(x)) + self.w * x

    def solve(self, b: Tensor, start: Tensor) -> Tensor:
        x, residual = start, b - self._apply(start)
        enough = (_INNER_RESIDUAL * b).square().sum((1, 2, 3), keepdim=True)
        for _ in range(_INNER_STEPS):
            if (residual.square().sum((1, 2, 3), keepdim=True) <= enough).all():
                break
            moved = self._apply(residual)
            power = moved.square().sum((1, 2, 3), keepdim=True)
            length = (residual * moved).sum((1, 2, 3), keepdim=True) / power.clamp(min=1e-300)
            x, residual = x + length * residual, residual - length * moved
        return x

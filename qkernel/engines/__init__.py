"""The engines that compute Q, behind one small interface, and the choice between them.

An engine knows nothing of autograd; the ops do not know which engine ran. A new engine is one file here and
one line in `ENGINES`.
"""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Protocol

from torch import Tensor

from ..definition import Definition
from . import cpp, cuda, eager, triton


class Engine(Protocol):
    """What an engine offers. All results are new tensors on the input's device; inputs are never written.

    Shapes: ``x`` and ``pred`` are N x {1, 3} x H x W in any strides, ``target`` is shaped like ``pred``, and
    ``offset`` is None or two int32 on the input's device, the first row and column of the patch grid.
    ``reduction`` is "mean", "sum" or "none" over the N images; a value is a scalar, or N values with "none",
    in float32 (float64 for float64 input). ``grad_output`` is shaped like the value.
    """

    def missing(self) -> str | None:
        """Why the engine cannot run here at all, and the way out; None if it can."""

    def refusal(self, x: Tensor, definition: Definition, target: Tensor | None = None) -> str | None:
        """Why the engine cannot take this input, with a target for the fused loss; None if it can."""

    def q(
        self, x: Tensor, definition: Definition, offset: Tensor | None, weight: float, reduction: str
    ) -> Tensor:
        """``weight`` * Q."""

    def q_grad(
        self,
        grad_output: Tensor,
        x: Tensor,
        definition: Definition,
        offset: Tensor | None,
        weight: float,
        reduction: str,
    ) -> Tensor:
        """Gradient of `q` for ``x``, with the strides of ``empty_like(x)``."""

    def pixel_q(
        self,
        pred: Tensor,
        target: Tensor,
        pixel: str,
        charbonnier_eps: float,
        definition: Definition,
        offset: Tensor | None,
        weight: float,
        reduction: str,
    ) -> tuple[Tensor, Tensor]:
        """The pixel term - ``weight`` * Q(pred), and both terms apart: 2 values, or 2 x N with "none"."""

    def pixel_q_grad(
        self,
        grad_output: Tensor,
        pred: Tensor,
        target: Tensor,
        pixel: str,
        charbonnier_eps: float,
        definition: Definition,
        offset: Tensor | None,
        weight: float,
        reduction: str,
    ) -> Tensor:
        """Gradient of `pixel_q` for ``pred``, with the strides of ``empty_like(pred)``."""


ENGINES: dict[str, Engine] = {"cpp": cpp, "cuda": cuda, "triton": triton, "eager": eager}


def _preference(x: Tensor, definition: Definition) -> tuple[str, ...]:
    """The order in which "auto" tries the engines; eager runs everywhere and comes last."""
    if x.device.type == "cpu":
        return ("cpp",)
    if x.device.type == "cuda":
        # By bench/results/gpu.md; see "Which of the two" in docs/kernels.md. Patches of 16, not measured,
        # cuda gives to its general kernel.
        return ("triton", "cuda") if definition.patch_size == 16 else ("cuda", "triton")
    return ()


def check_name(name: str) -> str:
    """What an engine may be asked for by, whether it is there or not."""
    if name != "auto" and name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}: choose 'auto' or one of {', '.join(map(repr, ENGINES))}")
    return name


@functools.cache
def _warn_eager(reasons: str) -> None:
    warnings.warn(
        f"qkernel: no fused engine for this input, so Q runs in plain torch, many times slower ({reasons}). "
        "`python -m qkernel` lists the engines; engine='eager' asks for this one without a warning.",
        stacklevel=_user_level(),
    )


def _user_level() -> int:
    """The stacklevel, for whoever calls this, of the line outside qkernel and torch."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("qkernel", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def choose(name: str, x: Tensor, definition: Definition, target: Tensor | None = None) -> Engine:
    """The engine called ``name``, or for "auto" the fastest that can take ``x``, and ``target`` beside it.

    Raises:
        ValueError: for an unknown name, or a named engine that cannot take this input.
        RuntimeError: for a named engine that is missing here.
    """
    check_name(name)
    if name == "auto":
        reasons = []
        for candidate in _preference(x, definition):
            engine = ENGINES[candidate]
            reason = engine.missing() or engine.refusal(x, definition, target)
            if reason is None:
                return engine
            reasons.append(f"{candidate}: {reason}")
        _warn_eager("; ".join(reasons) or f"none for device type {x.device.type!r}")
        return eager
    engine = ENGINES[name]
    if reason := engine.missing():
        raise RuntimeError(f"engine {name!r} is not available: {reason}")
    if reason := engine.refusal(x, definition, target):
        raise ValueError(f"engine {name!r} cannot take this input: {reason}")
    return engine

"""The Triton engine: Q on an NVIDIA GPU with nothing to compile beforehand.

The kernels are in `triton_kernels`. Triton is imported when the engine is first asked for, so that qkernel
works without it.
"""

from __future__ import annotations

import contextlib
import functools

import torch
from torch import Tensor

from ..definition import Definition

#: The oldest Triton and the oldest GPU (compute capability) that the kernels are compiled for in the tests.
OLDEST_TRITON = (3, 6)
OLDEST_GPU = (7, 5)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PATCH_SIZES = (4, 8, 16)


@functools.cache
def missing() -> str | None:
    if torch.version.hip is not None:
        return "it is made for NVIDIA GPUs, and this torch is built for ROCm; use engine='eager'"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device here; use engine='cpp' or engine='eager', which need none"
    try:
        import triton
    except ImportError as error:
        return f"triton cannot be imported ({error}): `pip install 'qkernel[triton]'`, or use engine='eager'"
    version = tuple(int(part) for part in triton.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST_TRITON:
        oldest = ".".join(map(str, OLDEST_TRITON))
        return (
            f"it needs triton {oldest} or newer, not {triton.__version__}: "
            f"`pip install 'triton>={oldest}'` (torch 2.11 and newer come with one), or use engine='eager'"
        )
    return None


def refusal(x: Tensor, definition: Definition, target: Tensor | None = None) -> str | None:
    if x.device.type != "cuda":
        return (
            f"it computes on CUDA tensors, not on {x.device.type!r}: move the images to the GPU, "
            "or use engine='cpp' or engine='eager'"
        )
    for image in (x, target):
        if image is not None and image.dtype not in DTYPES:
            return (
                f"it takes float32, bfloat16 and float16, not {image.dtype}: convert, or use engine='eager'"
            )
    if definition.patch_size not in PATCH_SIZES:
        return (
            f"its blocks are powers of two, so patch_size must be 4, 8 or 16, not {definition.patch_size}: "
            "use engine='eager'"
        )
    return _too_old(x.device)


@functools.cache
def _too_old(device: torch.device) -> str | None:
    capability = torch.cuda.get_device_capability(device)
    if capability >= OLDEST_GPU:
        return None
    return (
        f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}, "
        f"and it needs {OLDEST_GPU[0]}.{OLDEST_GPU[1]} or newer: use engine='eager'"
    )


def q(x: Tensor, definition: Definition, offset: Tensor | None, weight: float, reduction: str) -> Tensor:
    with _on(x):
        return _launch().value(x, None, "none", 0.0, definition, offset, weight, reduction)[0]


def q_grad(
    grad_output: Tensor,
    x: Tensor,
    definition: Definition,
    offset: Tensor | None,
    weight: float,
    reduction: str,
) -> Tensor:
    with _on(x):
        return _launch().gradient(grad_output, x, None, "none", 0.0, definition, offset, weight, reduction)


def pixel_q(
    pred: Tensor,
    target: Tensor,
    pixel: str,
    charbonnier_eps: float,
    definition: Definition,
    offset: Tensor | None,
    weight: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    _check_target(target)
    with _on(pred):
        return _launch().value(pred, target, pixel, charbonnier_eps, definition, offset, weight, reduction)


def pixel_q_grad(
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
    _check_target(target)
    with _on(pred):
        return _launch().gradient(
            grad_output, pred, target, pixel, charbonnier_eps, definition, offset, weight, reduction
        )


def _check_target(target: Tensor) -> None:
    if target.dtype not in DTYPES:
        raise ValueError(
            f"engine 'triton' takes a float32, bfloat16 or float16 target, not {target.dtype}: "
            "convert it, or use engine='eager'"
        )


@functools.cache
def _launch():
    from .triton_kernels import launch

    return launch


def _on(x: Tensor) -> contextlib.AbstractContextManager:
    # Triton launches on the current device, and on the stream that is current there.
    if x.device.type == "cuda" and x.device.index != torch.cuda.current_device():
        return torch.cuda.device(x.device)
    return contextlib.nullcontext()

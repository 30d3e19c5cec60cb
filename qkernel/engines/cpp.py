"""The C++ engine: vectorised kernels on the CPU, in torch's thread pool. Built with the package (csrc/)."""

from __future__ import annotations

import functools
import importlib
import os

import torch
from torch import Tensor

from ..definition import Definition

try:
    _C = importlib.import_module("qkernel._C")
except ImportError as error:
    _C = None
    _import_error = str(error)

#: Gradients from here on are worth a word with the operating system, which takes a microsecond.
_LARGE = 4 << 20

_NO_TENSOR = (0, 0, (0, 0, 0, 0))
_NO_PIXEL_TERM = (0, 0.0)

if _C is not None:
    _DTYPES = {
        getattr(torch, name): getattr(_C, name) for name in ("float32", "float64", "bfloat16", "float16")
    }
    _REDUCTIONS = {name: number for number, name in enumerate(_C.reductions)}
    _PIXEL_TERMS = {name: number for number, name in enumerate(_C.pixel_terms)}


def missing() -> str | None:
    if _C is not None and not hasattr(_C, "prefer_large_pages"):
        return "its compiled part is of an earlier version: install qkernel again, `pip install .`"
    if _C is not None:
        return None
    return (
        f"its compiled part could not be imported ({_import_error}); it is built when qkernel is "
        "installed on a machine with a C++17 compiler: `pip install .` again there"
    )


def refusal(x: Tensor, definition: Definition, target: Tensor | None = None) -> str | None:
    if x.device.type != "cpu":
        return f"it computes on the CPU, and the images are on {x.device}"
    return None


@functools.cache
def simd() -> str:
    """The instruction set in use: the best of this processor, or a lesser one named by QKERNEL_SIMD.

    Raises:
        ValueError: if QKERNEL_SIMD is unknown, or better than the processor.
    """
    best = _C.simd_levels[_C.best_simd]
    name = os.environ.get("QKERNEL_SIMD", best)
    if name not in _C.simd_levels[: _C.best_simd + 1]:
        raise ValueError(
            f"QKERNEL_SIMD must be one of {', '.join(_C.simd_levels[: _C.best_simd + 1])} here, not {name!r}"
        )
    return name


def thread_backend() -> str:
    """What runs the threads: "OpenMP", torch's own pool, or "std::thread" where torch has none to share."""
    return _C.thread_backend()


@functools.cache
def _simd_number() -> int:
    return _C.simd_levels.index(simd())


@functools.lru_cache(maxsize=256)
def _definition(definition: Definition) -> tuple:
    return (
        _C.formulas.index(definition.name),
        definition.patch_size,
        definition.threshold,
        definition.smoothing,
        definition.data_range,
        definition.formula.gradient == "sobel",
    )


def _tensor(x: Tensor) -> tuple:
    return x.data_ptr(), _DTYPES[x.dtype], x.stride()


def _settings(weight: float, reduction: str) -> tuple:
    return weight, _REDUCTIONS[reduction], torch.get_num_threads(), _simd_number()


def _address(offset: Tensor | None) -> int:
    return 0 if offset is None else offset.data_ptr()


def q(x: Tensor, definition: Definition, offset: Tensor | None, weight: float, reduction: str) -> Tensor:
    wide = x.dtype == torch.float64
    # Beside the images: a default device may be another.
    value = torch.empty(
        x.shape[:1] if reduction == "none" else (),
        dtype=torch.float64 if wide else torch.float32,
        device=x.device,
    )
    offset = _dense(offset)
    _C.forward(
        x.shape,
        _tensor(x),
        _NO_TENSOR,
        _definition(definition),
        _NO_PIXEL_TERM,
        _address(offset),
        _settings(weight, reduction),
        value.data_ptr(),
        0,
        wide,
    )
    return value


def q_grad(
    grad_output: Tensor,
    x: Tensor,
    definition: Definition,
    offset: Tensor | None,
    weight: float,
    reduction: str,
) -> Tensor:
    gradient = _gradient_like(x)
    wide = x.dtype == torch.float64
    grad_output, offset = _as_value(grad_output, wide), _dense(offset)
    _C.backward(
        x.shape,
        _tensor(x),
        _NO_TENSOR,
        _definition(definition),
        _NO_PIXEL_TERM,
        _address(offset),
        _settings(weight, reduction),
        grad_output.data_ptr(),
        _tensor(gradient),
        wide,
    )
    return gradient


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
    wide = torch.float64 in (pred.dtype, target.dtype)
    dtype = torch.float64 if wide else torch.float32
    shape = pred.shape[:1] if reduction == "none" else ()
    loss = torch.empty(shape, dtype=dtype, device=pred.device)
    terms = torch.empty((2, *shape), dtype=dtype, device=pred.device)
    offset = _dense(offset)
    _C.forward(
        pred.shape,
        _tensor(pred),
        _tensor(target),
        _definition(definition),
        (_PIXEL_TERMS[pixel], charbonnier_eps),
        _address(offset),
        _settings(weight, reduction),
        loss.data_ptr(),
        terms.data_ptr(),
        wide,
    )
    return loss, terms


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
    gradient = _gradient_like(pred)
    wide = torch.float64 in (pred.dtype, target.dtype)
    grad_output, offset = _as_value(grad_output, wide), _dense(offset)
    _C.backward(
        pred.shape,
        _tensor(pred),
        _tensor(target),
        _definition(definition),
        (_PIXEL_TERMS[pixel], charbonnier_eps),
        _address(offset),
        _settings(weight, reduction),
        grad_output.data_ptr(),
        _tensor(gradient),
        wide,
    )
    return gradient


def _gradient_like(x: Tensor) -> Tensor:
    """Memory for the gradient; a large one in large pages where the system has them, as it is all written.

    Fetching fresh memory in pages of 4 KiB takes longer than computing what goes there, and the C library
    gives large blocks back to the system: those beyond 32 MiB always, others when enough is free.
    """
    gradient = torch.empty_like(x)
    if gradient.nbytes >= _LARGE:
        _C.prefer_large_pages(gradient.data_ptr(), gradient.nbytes)
    return gradient


def _as_value(grad_output: Tensor, wide: bool) -> Tensor:
    """One number, or one per image, as the kernels read it: these few may be expanded or of another dtype."""
    dtype = torch.float64 if wide else torch.float32
    return (
        grad_output
        if grad_output.dtype == dtype and grad_output.is_contiguous()
        else (grad_output.to(dtype).contiguous())
    )


def _dense(offset: Tensor | None) -> Tensor | None:
    return None if offset is None else offset.to(torch.int32).contiguous()

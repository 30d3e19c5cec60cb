"""The CUDA engine: CUDA C++ kernels for NVIDIA GPUs. Built with the package where there is an nvcc."""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor

from ..definition import Definition

try:
    _cuda = importlib.import_module("qkernel._cuda")
except ImportError as error:
    _cuda = None
    _import_error = str(error)

_NO_PIXEL_TERM = (0, 0.0, (0, 0, (0, 0, 0, 0)))


def is_built() -> bool:
    return _cuda is not None


def missing() -> str | None:
    if _cuda is None:
        return (
            f"its compiled part could not be imported ({_import_error}); it is built when qkernel is "
            "installed on a machine with the CUDA toolkit (12 or 13), nvcc on PATH or under CUDA_HOME: "
            "`pip install .` again there"
        )
    if torch.version.cuda is None:
        return "this torch was built without CUDA: install one of https://pytorch.org's CUDA builds"
    if reason := _no_device():
        return reason
    return None if _torch_sees_one() else "torch sees no CUDA device"


@functools.cache
def _torch_sees_one() -> bool:
    return torch.cuda.is_available()


@functools.cache
def _no_device() -> str:
    return _cuda.no_device()


def refusal(x: Tensor, definition: Definition, target: Tensor | None = None) -> str | None:
    if x.device.type != "cuda":
        return f"it computes on an NVIDIA GPU, and the images are on {x.device}"
    if definition.patch_size > _cuda.largest_patch:
        return f"its patches have at most {_cuda.largest_patch} pixels a side, not {definition.patch_size}"
    return _unsupported(x.device.index)


@functools.cache
def _unsupported(device: int) -> str | None:
    capability = torch.cuda.get_device_capability(device)
    if runs_on(capability, architectures()):
        return None
    major, minor = capability
    return (
        f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, and the kernels were "
        f"built for {', '.join(architectures())}: install qkernel again with "
        f"QKERNEL_CUDA_ARCHS={major}{minor} and a CUDA toolkit that knows it"
    )


def architectures() -> tuple[str, ...]:
    """What was built: "90" is machine code for 9.0, "90-ptx" code that 9.0 and later GPUs compile."""
    return tuple(_cuda.architectures.split(","))


def toolkit() -> str:
    """Version of the CUDA toolkit they were built with."""
    return _cuda.toolkit


def few_patches(multiprocessors: int) -> int:
    """For how many patches of 8 x 8, at most, a backward pass spreads a patch over eight threads."""
    return _cuda.few_patches() * multiprocessors


def runs_on(capability: tuple[int, int], built: tuple[str, ...]) -> bool:
    """Machine code runs on its major version from its minor version on, PTX on all from its version on."""
    number = 10 * capability[0] + capability[1]
    for name in built:
        of = int(name.removesuffix("-ptx"))
        if number >= of and (name.endswith("-ptx") or of // 10 == capability[0]):
            return True
    return False


@functools.lru_cache(maxsize=256)
def _definition(definition: Definition) -> tuple:
    return (
        _cuda.formulas.index(definition.name),
        definition.patch_size,
        definition.threshold,
        definition.smoothing,
        definition.data_range,
        definition.formula.gradient == "sobel",
    )


def _tensor(x: Tensor) -> tuple:
    return x.data_ptr(), getattr(_cuda, str(x.dtype).removeprefix("torch.")), x.stride()


def _pixel_term(pixel: str, charbonnier_eps: float, target: Tensor) -> tuple:
    return _cuda.pixel_terms.index(pixel), charbonnier_eps, _tensor(target)


def _settings(offset: Tensor | None, weight: float, reduction: str) -> tuple:
    return 0 if offset is None else offset.data_ptr(), weight, _cuda.reductions.index(reduction)


def _place(x: Tensor) -> tuple[int, int]:
    return x.device.index, torch.cuda.current_stream(x.device).cuda_stream


def _value_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def _dense(offset: Tensor | None) -> Tensor | None:
    return None if offset is None else offset.to(torch.int32).contiguous()


def _forward(x, pixel, definition, offset, weight, reduction, dtype) -> tuple[Tensor, Tensor]:
    shape = x.shape[:1] if reduction == "none" else ()
    value = torch.empty(shape, dtype=dtype, device=x.device)
    terms = torch.empty((2, *shape) if pixel[0] else 0, dtype=dtype, device=x.device)
    offset = _dense(offset)
    arguments = (x.shape, _tensor(x), pixel, _definition(definition), _settings(offset, weight, reduction))
    # From torch's allocator: it may be freed while the kernels run, for they run on the stream it belongs to.
    workspace = torch.empty(_cuda.workspace_bytes(*arguments), dtype=torch.uint8, device=x.device)
    _cuda.forward(*arguments, _place(x), workspace.data_ptr(), value.data_ptr(), terms.data_ptr())
    return value, terms


def _backward(grad_output, x, pixel, definition, offset, weight, reduction, dtype) -> Tensor:
    gradient = torch.empty_like(x)
    grad_output, offset = grad_output.to(dtype).contiguous(), _dense(offset)
    _cuda.backward(
        x.shape,
        _tensor(x),
        pixel,
        _definition(definition),
        _settings(offset, weight, reduction),
        _place(x),
        grad_output.data_ptr(),
        _tensor(gradient),
    )
    return gradient


def q(x: Tensor, definition: Definition, offset: Tensor | None, weight: float, reduction: str) -> Tensor:
    return _forward(x, _NO_PIXEL_TERM, definition, offset, weight, reduction, _value_dtype(x))[0]


def q_grad(
    grad_output: Tensor,
    x: Tensor,
    definition: Definition,
    offset: Tensor | None,
    weight: float,
    reduction: str,
) -> Tensor:
    return _backward(grad_output, x, _NO_PIXEL_TERM, definition, offset, weight, reduction, _value_dtype(x))


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
    term = _pixel_term(pixel, charbonnier_eps, target)
    return _forward(pred, term, definition, offset, weight, reduction, _value_dtype(pred, target))


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
    term = _pixel_term(pixel, charbonnier_eps, target)
    dtype = _value_dtype(pred, target)
    return _backward(grad_output, pred, term, definition, offset, weight, reduction, dtype)

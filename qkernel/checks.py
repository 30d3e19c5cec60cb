"""The checks of arguments, in words that name the value and the way out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

REDUCTIONS = ("mean", "sum", "none")
PIXEL_TERMS = ("l1", "mse", "charbonnier")
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_images(name: str, x: Tensor) -> None:
    """A batch of float images, as the losses take it."""
    if not isinstance(x, Tensor):
        raise _no_tensor(name, x)
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"{name} must be N x 1 x H x W or N x 3 x H x W, not of shape {tuple(x.shape)}"
            f"{_layout_hint(name, x.shape, batch=True)}"
        )
    if x.dtype not in FLOATS:
        raise TypeError(
            f"{name} must be float32, float64, bfloat16 or float16, not {x.dtype}{_dtype_hint(x.dtype)}"
        )


def picture(x: Tensor, data_range: float) -> tuple[Tensor, float]:
    """A batch of float images and their data range, from what the metric takes."""
    if not isinstance(x, Tensor):
        raise _no_tensor("x", x)
    shape = x.shape
    if x.dim() not in (2, 3, 4):
        raise ValueError(
            f"x must be N x {{1, 3}} x H x W, {{1, 3}} x H x W or H x W, not of shape {tuple(shape)}"
            f"{_layout_hint('x', shape, batch=False)}"
        )
    if x.dtype == torch.uint8:
        if data_range not in (1.0, 255.0):
            raise ValueError(f"the data_range of uint8 pictures is 255, not {data_range}")
        x, data_range = x.float(), 255.0
    if x.dim() == 2:
        x = x[None, None]
    elif x.dim() == 3:
        x = x[None]
    if x.shape[1] not in (1, 3):
        raise ValueError(
            f"x must have 1 or 3 channels, not {x.shape[1]} (shape {tuple(shape)})"
            f"{_layout_hint('x', shape, batch=False)}"
        )
    if x.dtype not in FLOATS:
        raise TypeError(
            f"x must be float32, float64, bfloat16, float16 or uint8, not {x.dtype}{_dtype_hint(x.dtype)}"
        )
    return x, data_range


def _no_tensor(name: str, x: object) -> TypeError:
    # numpy's arrays and Pillow's pictures have such an interface.
    hint = f": torch.from_numpy(numpy.array({name}))" if hasattr(x, "__array_interface__") else ""
    return TypeError(f"{name} must be a torch.Tensor, not {type(x).__name__}{hint}")


def _layout_hint(name: str, shape: Sequence[int], batch: bool) -> str:
    """What to write instead, where the shape tells what was meant; ``batch``: where it must be a batch."""
    one = "[None]" if batch else ""
    if len(shape) > 4:
        return f": {name}.flatten(0, {len(shape) - 4}) is one batch"
    if len(shape) == 2:
        return f": {name}[None, None] is a batch of one picture"
    if len(shape) < 2:
        return ""
    if shape[-3] == 4:
        return f": without alpha, {name}[:, :3]" if len(shape) == 4 else f": without alpha, {name}[:3]{one}"
    if shape[-3] not in (1, 3) and shape[-1] in (1, 3, 4):
        last = f".movedim(-1, -3){one if len(shape) == 3 else ''}"
        return f": channels come before height and width, {name}{last}"
    if len(shape) == 4:
        return ": channels come before height and width"
    if shape[0] in (1, 3):
        return f": {name}[None] is a batch of one picture"
    return f": {name}[:, None] is a batch of {shape[0]} grey pictures"


def _dtype_hint(dtype: torch.dtype) -> str:
    if dtype.is_complex or dtype == torch.bool:
        return ""
    if dtype.is_floating_point:
        return ": x.float()"
    white = {torch.uint8: "255", torch.uint16: "65535"}.get(dtype, "white")
    return f": for {str(dtype).removeprefix('torch.')} pictures, x.float() / {white}"


def check_weight(weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        outside = ": in a tensor it goes outside, pixel_loss - weight * q_metric(pred)"
        raise TypeError(
            f"weight must be a number, not {weight!r}{outside if isinstance(weight, Tensor) else ''}"
        )
    if not -float("inf") < weight < float("inf"):
        raise ValueError(f"weight must be finite, not {weight}")
    return float(weight)


def check_reduction(reduction: str) -> str:
    if reduction not in REDUCTIONS:
        raise ValueError(f"unknown reduction {reduction!r}: choose one of {', '.join(REDUCTIONS)}")
    return reduction


def check_pixel(pixel: str) -> str:
    if pixel not in PIXEL_TERMS:
        raise ValueError(f"unknown pixel term {pixel!r}: choose one of {', '.join(PIXEL_TERMS)}")
    return pixel


def check_charbonnier_eps(eps: float) -> float:
    if isinstance(eps, bool) or not isinstance(eps, (int, float)):
        raise TypeError(f"charbonnier_eps must be a number, not {eps!r}")
    if not 0 < eps < float("inf"):
        raise ValueError(f"charbonnier_eps must be positive and finite, not {eps}")
    return float(eps)


def check_return_terms(return_terms: bool) -> bool:
    if not isinstance(return_terms, bool):
        raise TypeError(f"return_terms must be True or False, not {return_terms!r}")
    return return_terms

"""Weights of 8 bits: each row of a tensor in whole numbers from -127 to 127, times a number of its own."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["restored", "rounded", "worth"]

_SCALE = ".scale"
_SMALLEST = 4096


def worth(tensor: Tensor) -> bool:
    """Whether a tensor is kept in 8 bits: with two and more dimensions and 4,096 and more numbers.

    The small ones of a network are its first and last layers, whose errors go everywhere, and they save next
    to nothing: in the paper's U-Net they hold 0.4 % of the weights.
    """
    return tensor.is_floating_point() and tensor.ndim > 1 and tensor.numel() >= _SMALLEST


def rounded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for which it is `worth` it as int8, with a float32 scale for each of their rows beside them.

    Args:
        tensors: by name.

    Returns:
        name -> int8 and name.scale -> float32 of the first dimension's length; the others as they are.

    Raises:
        ValueError: if a name is another one's with ".scale" behind it.
    """
    result = {}
    if clash := [name for name, one in tensors.items() if worth(one) and name + _SCALE in tensors]:
        raise ValueError(f"no scale can be kept for {clash[0]}: there is a tensor {clash[0] + _SCALE}")
    for name, tensor in tensors.items():
        if not worth(tensor):
            result[name] = tensor
            continue
        largest = tensor.to(torch.float32).abs().flatten(1).amax(1)
        # A row of zeros stays one.
        scale = torch.where(largest > 0, largest / 127, 1.0)
        result[name] = (tensor / _along(scale, tensor)).round().to(torch.int8)
        result[name + _SCALE] = scale
    return result


def restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `rounded` was given, within half a scale, as float32; others as they are."""
    small = {
        name for name, tensor in tensors.items() if tensor.dtype == torch.int8 and name + _SCALE in tensors
    }
    scales = {name + _SCALE for name in small}
    return {
        name: tensor * _along(tensors[name + _SCALE], tensor) if name in small else tensor
        for name, tensor in tensors.items()
        if name not in scales
    }


def _along(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (tensor.ndim - 1))

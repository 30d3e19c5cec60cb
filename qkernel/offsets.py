"""The offset of the patch grid: what may be asked for, and the tensor that the ops take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Offset = str | Sequence[int] | Tensor


def check_offset(offset: Offset, patch_size: int) -> None:
    """As much of an offset as can be told without an image."""
    if isinstance(offset, str):
        _check_random(offset)
    elif isinstance(offset, Tensor):
        _check_tensor(offset)
    else:
        for value, name in zip(_pair(offset), ("dy", "dx"), strict=True):
            if not 0 <= value < patch_size:
                raise ValueError(
                    f"offset {name} must lie between 0 and {patch_size - 1} for patch_size {patch_size}, "
                    f"not {value}"
                )


def grid(x: Tensor, patch_size: int, offset: Offset) -> Tensor | None:
    """The offset as the ops take it: None for (0, 0), else two int32 on x's device."""
    n = patch_size
    if x.shape[2] < n or x.shape[3] < n:
        raise ValueError(
            f"an image of {x.shape[2]} x {x.shape[3]} pixels is smaller than one patch of {n} x {n}"
        )
    size = x.shape[2:]
    limits = [min(n - 1, s - n) for s in size]
    if isinstance(offset, str):
        _check_random(offset)
        return _draw(limits, x.device)
    if isinstance(offset, Tensor):
        _check_tensor(offset)
        if offset.device != x.device:
            raise ValueError(
                f"the offset tensor must be on the images' device {x.device}, not {offset.device}"
            )
        if offset.device.type == "cpu" and not torch.compiler.is_compiling() and not _is_traced(offset):
            _check_range(offset.tolist(), limits, size, n)
        return offset.to(torch.int32)
    dy, dx = _pair(offset)
    if dy == dx == 0:
        return None
    _check_range((dy, dx), limits, size, n)
    # Filled on the device, both by one launch: a copy from the host would not be allowed in a captured graph.
    return torch.full((1,), int(dy) + (int(dx) << 32), dtype=torch.int64, device=x.device).view(torch.int32)


def _draw(limits: Sequence[int], device: torch.device) -> Tensor:
    # On the device, so that a compiled or captured step draws anew every time it runs.
    def draw(limit: int, count: int) -> Tensor:
        return torch.randint(0, limit + 1, (count,), dtype=torch.int32, device=device)

    # One launch instead of three wherever the sides have room for any offset; a compiled graph merges the
    # three itself, and must not be bound to what the sides of its example have room for.
    if torch.compiler.is_compiling():
        return torch.cat([draw(limit, 1) for limit in limits])
    try:
        return draw(limits[0], 2) if limits[0] == limits[1] else torch.cat([draw(k, 1) for k in limits])
    except RuntimeError as error:
        if "randomness" not in str(error):
            raise
        raise RuntimeError(
            "offset='random' under vmap draws one grid for all samples: use vmap(..., randomness='same')"
        ) from None


def _check_random(offset: str) -> None:
    if offset != "random":
        raise ValueError(f"offset must be (dy, dx), a tensor of two integers or 'random', not {offset!r}")


def _check_tensor(offset: Tensor) -> None:
    if offset.shape != (2,) or offset.is_floating_point() or offset.dtype == torch.bool:
        raise ValueError(
            f"an offset tensor must hold two integers (dy, dx), not {tuple(offset.shape)} of {offset.dtype}"
        )


def _pair(offset: Sequence[int]) -> tuple[int, int]:
    try:
        dy, dx = offset
        if isinstance(dy, bool) or isinstance(dx, bool) or int(dy) != dy or int(dx) != dx:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"offset must be (dy, dx), a tensor of two integers or 'random', not {offset!r}"
        ) from None
    return dy, dx


def _is_traced(x: Tensor) -> bool:
    return type(x) is not Tensor or torch._C._functorch.is_functorch_wrapped_tensor(x)


def _check_range(offset: Sequence[int], limits: Sequence[int], size: Sequence[int], n: int) -> None:
    for value, limit, name in zip(offset, limits, ("dy", "dx"), strict=True):
        if not 0 <= value <= limit:
            raise ValueError(
                f"offset {name} must lie between 0 and {limit} for an image of {size[0]} x {size[1]} "
                f"and patch_size {n}, not {value}"
            )

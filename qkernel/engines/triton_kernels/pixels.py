"""A row of pixels, as `load_row` reads it: channels to luma and back, and the pixel terms."""

# Tuples grow by concatenation here, since Triton compiles no unpacking.
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from .cells import inside
from .memory import fma_in_place
from .patch import total

# BT.601
RED = tl.constexpr(0.299)
GREEN = tl.constexpr(0.587)
BLUE = tl.constexpr(0.114)


@triton.jit
def _share(c):
    return tl.where(c == 0, RED, tl.where(c == 1, GREEN, BLUE))


@triton.jit
def luma_row(before, row, i: tl.constexpr, c, CHANNELS: tl.constexpr, COUNT: tl.constexpr):
    """Row i with what the channels before this one have made of it; of a single channel, as it is."""
    if CHANNELS == 1:
        return row
    else:
        out = ()
        for j in tl.static_range(COUNT):
            out = out + (fma_in_place(row[j], _share(c), before[i * COUNT + j]),)
        return out


@triton.jit
def pixel_terms(
    row, other, y, left, H, W, charbonnier, COUNT: tl.constexpr, V: tl.constexpr, PIXEL: tl.constexpr
):
    """The sum of a row's terms, for each lane."""
    WIDTH: tl.constexpr = V if V > 0 else 1
    out = ()
    for j in tl.static_range(COUNT):
        d = row[j] - other[j]
        if PIXEL == "l1":
            term = tl.abs(d)
        elif PIXEL == "mse":
            term = d * d
        else:
            # Pixels outside the image are 0 in both, which this term alone does not map to 0.
            here = inside(y, left + j // WIDTH * WIDTH, H, W, V)
            term = tl.where(here, tl.sqrt(tl.fma(d, d, charbonnier)), 0.0)
        out = out + (term,)
    return total(out, COUNT)


@triton.jit
def pixel_slopes(before, row, other, scale, charbonnier, COUNT: tl.constexpr, PIXEL: tl.constexpr):
    """``before`` with the gradient of the pixel terms of a row, times ``scale``, added."""
    out = ()
    for j in tl.static_range(COUNT):
        d = row[j] - other[j]
        if PIXEL == "l1":
            slope = tl.where(d > 0, scale, tl.where(d < 0, -scale, 0.0))
        elif PIXEL == "mse":
            slope = d * (scale + scale)
        else:
            slope = scale * (d / tl.sqrt(tl.fma(d, d, charbonnier)))
        out = out + (before[j] + slope,)
    return out


@triton.jit
def channel_row(row, c, CHANNELS: tl.constexpr, COUNT: tl.constexpr):
    """A row of the luma's gradient as the channel's."""
    if CHANNELS == 1:
        return row
    else:
        out = ()
        for j in tl.static_range(COUNT):
            out = out + (row[j] * _share(c),)
        return out

"""A row of pixels, as `load_row` reads it: channels to luma and back, and the pixel terms."""

# Tuples grow by concatenation here, since Triton compiles no unpacking.
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from .cells import inside
from .memory import add_if_bit, fma_in_place, set_where
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


@triton.constexpr_function
def words(pixels: int) -> int:
    """How many the signs of so many pixels take, see `with_signs`."""
    return 2 * -(-pixels // 32)


@triton.constexpr_function
def _bit(k: int) -> int:
    # Of an int32.
    return (1 << k) - (1 << 32 if k == 31 else 0)


@triton.jit
def with_signs(before, row, other, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """``before`` with the signs of row - other, pixels FIRST and after: of 32 pixels a word says where it is
    above 0, a second one where below. A row lies in one pair of words. NaN is neither, and its slope 0, as
    torch's."""
    WORD: tl.constexpr = FIRST // 32 * 2
    if FIRST % 32 == 0:
        above = tl.zeros_like(row[0]).to(tl.int32)
        below = above
    else:
        above = before[WORD]
        below = before[WORD + 1]
    for j in tl.static_range(COUNT):
        d = row[j] - other[j]
        above = set_where(d > 0, above, _bit(FIRST % 32 + j))
        below = set_where(d < 0, below, _bit(FIRST % 32 + j))
    return before[:WORD] + (above, below)


@triton.jit
def slopes_by_sign(before, signs, scale, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """What `pixel_slopes` makes of "l1", from the signs (`with_signs`) of pixels FIRST and after."""
    WORD: tl.constexpr = FIRST // 32 * 2
    out = ()
    for j in tl.static_range(COUNT):
        risen = add_if_bit(before[j], scale, signs[WORD], _bit(FIRST % 32 + j))
        out = out + (add_if_bit(risen, -scale, signs[WORD + 1], _bit(FIRST % 32 + j)),)
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

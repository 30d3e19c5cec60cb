"""How a patch lies in registers.

A *lane* is a thread. It holds all N rows of C neighbouring columns of one patch, so nearly every gradient is
arithmetic within a thread. A patch takes S = N / C lanes, which stand next to each other; with S > 1 (N = 16)
a lane's outer columns have neighbours in other lanes, which `before` and `after` fetch.

What every lane has one of is a block [LANES]. What it has of a patch is a tuple of N * C of them, row by row,
or column by column after `transposed`, which costs no instruction: it only renames registers.
"""

# Tuples grow by concatenation here, since Triton compiles no unpacking.
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from .memory import WARP, exchanged, from_lane, lane_numbers


@triton.jit
def transposed(x, COUNT: tl.constexpr):
    """A tuple of lines of COUNT blocks as one of COUNT lines."""
    out = ()
    for k in tl.static_range(COUNT):
        out = out + x[k::COUNT]
    return out


@triton.jit
def columns(x, FIRST: tl.constexpr, COUNT: tl.constexpr, LINES: tl.constexpr, LENGTH: tl.constexpr):
    """COUNT columns, from FIRST on, of LINES rows of LENGTH blocks."""
    out = ()
    for i in tl.static_range(LINES):
        out = out + x[i * LENGTH + FIRST : i * LENGTH + FIRST + COUNT]
    return out


# Writing. What a lane has of a row takes COUNT stores, each of which would fill a part of every sector of the
# cache. So the lanes of a warp exchange pixels, and with the k-th store they write all that the k-th of COUNT
# equal parts of the warp has of the row.


@triton.jit
def share_written(L: tl.constexpr, COUNT: tl.constexpr):
    """[L]: which of the COUNT shares of another lane's row each lane writes."""
    return lane_numbers(L) // (WARP // COUNT)


@triton.jit
def of_owner(x, k: tl.constexpr, COUNT: tl.constexpr):
    """[L]: the x of the lane whose share each lane writes with the k-th store."""
    SIZE: tl.constexpr = WARP // COUNT
    return from_lane(x, lane_numbers(x.shape[0]) % SIZE + k * SIZE)


@triton.jit
def dealt(row, LENGTH: tl.constexpr, WIDTH: tl.constexpr, DISTANCE: tl.constexpr = WARP // 2):
    """A row of LENGTH blocks as LENGTH / WIDTH times WIDTH: what each lane writes with each store.

    Halves of rows change places between the halves of a warp, then quarters between its quarters: of lanes
    DISTANCE apart the left one gets both left halves, the right one both right ones; first what was the left
    one's.
    """
    if LENGTH == WIDTH:
        return row
    else:
        HALF: tl.constexpr = LENGTH // 2
        right = lane_numbers(row[0].shape[0]) // DISTANCE % 2 == 1
        first = ()
        second = ()
        for k in tl.static_range(HALF):
            a = row[k]
            b = row[HALF + k]
            got = exchanged(tl.where(right, a, b), "bfly", DISTANCE)
            first = first + (tl.where(right, got, a),)
            second = second + (tl.where(right, b, got),)
        return dealt(first, HALF, WIDTH, DISTANCE // 2) + dealt(second, HALF, WIDTH, DISTANCE // 2)


# A patch over several lanes. With S = 1 there are no neighbours, and borders are known when compiling.


@triton.jit
def _is_first(x, S: tl.constexpr):
    return tl.arange(0, x.shape[0]) % S == 0


@triton.jit
def _is_last(x, S: tl.constexpr):
    return tl.arange(0, x.shape[0]) % S == S - 1


@triton.jit
def before(last, border, S: tl.constexpr):
    """What comes before each lane: ``last`` of the lane to its left, or ``border`` at the patch's border."""
    if S == 1:
        return border
    else:
        return tl.where(_is_first(border, S), border, exchanged(last, "up", 1))


@triton.jit
def after(first, border, S: tl.constexpr):
    """What comes after each lane: ``first`` of the lane to its right, or ``border`` at the patch's border."""
    if S == 1:
        return border
    else:
        return tl.where(_is_last(border, S), border, exchanged(first, "down", 1))


@triton.jit
def doubled_if_first(x, S: tl.constexpr):
    if S == 1:
        return x + x
    else:
        return tl.where(_is_first(x, S), x + x, x)


@triton.jit
def doubled_if_last(x, S: tl.constexpr):
    if S == 1:
        return x + x
    else:
        return tl.where(_is_last(x, S), x + x, x)


@triton.jit
def zero_if_first(x, S: tl.constexpr):
    if S == 1:
        return tl.zeros_like(x)
    else:
        return tl.where(_is_first(x, S), 0.0, x)


@triton.jit
def zero_if_last(x, S: tl.constexpr):
    if S == 1:
        return tl.zeros_like(x)
    else:
        return tl.where(_is_last(x, S), 0.0, x)


@triton.jit
def patch_sum(x, S: tl.constexpr, DISTANCE: tl.constexpr = 1):
    """The sum of each lane's x over its patch's lanes, the same bits in all of them."""
    if DISTANCE == S:
        return x
    else:
        return patch_sum(x + exchanged(x, "bfly", DISTANCE), S, 2 * DISTANCE)

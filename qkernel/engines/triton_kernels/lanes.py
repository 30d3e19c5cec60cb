"""How a patch lies in registers.

A *lane* is a row of a [LANES, n] block, in practice one thread. It holds all N rows of C neighbouring columns
of one patch, so nearly every gradient is arithmetic within a thread. A patch takes S = N / C lanes, which
stand next to each other; with S > 1 (N = 16) a lane's outer columns have neighbours in other lanes, which
`before` and `after` fetch.

A patch exists in two forms: by row, a tuple of N blocks [LANES, C], where a vertical difference is a
difference of two blocks; and by column, a tuple of C blocks [LANES, N], where a horizontal one is.
`transposed` turns one into the other. Each thread owns a whole row of every block, so going from one form to
another costs no instruction: it only renames registers.
"""

# Tuples grow by concatenation here, since Triton compiles no unpacking.
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def stacked(x, FIRST: tl.constexpr, STEP: tl.constexpr, COUNT: tl.constexpr):
    """COUNT blocks [L, M], from x[FIRST] in steps, as one block [L, M, COUNT]."""
    L: tl.constexpr = x[0].shape[0]
    M: tl.constexpr = x[0].shape[1]
    if COUNT == 2:
        return tl.join(x[FIRST], x[FIRST + STEP])
    else:
        even = stacked(x, FIRST, 2 * STEP, COUNT // 2)
        odd = stacked(x, FIRST + STEP, 2 * STEP, COUNT // 2)
        return tl.reshape(tl.join(even, odd), [L, M, COUNT])


@triton.jit
def _interleaved(even, odd, COUNT: tl.constexpr):
    out = ()
    for k in tl.static_range(COUNT):
        out = out + (even[k], odd[k])
    return out


@triton.jit
def unstacked(block, COUNT: tl.constexpr):
    """A block [L, M, COUNT] as COUNT blocks [L, M]."""
    L: tl.constexpr = block.shape[0]
    M: tl.constexpr = block.shape[1]
    if COUNT == 2:
        a, b = tl.split(block)
        return (a, b)
    else:
        even, odd = tl.split(tl.reshape(block, [L, M, COUNT // 2, 2]))
        return _interleaved(unstacked(even, COUNT // 2), unstacked(odd, COUNT // 2), COUNT // 2)


@triton.jit
def transposed(x, COUNT: tl.constexpr, LENGTH: tl.constexpr):
    """COUNT blocks [L, LENGTH] as LENGTH blocks [L, COUNT]."""
    return unstacked(tl.permute(stacked(x, 0, 1, COUNT), [0, 2, 1]), LENGTH)


@triton.jit
def side_by_side(left, right):
    """[L, V] and [L, V] as [L, 2 V]."""
    L: tl.constexpr = left.shape[0]
    V: tl.constexpr = left.shape[1]
    return tl.reshape(tl.permute(tl.join(left, right), [0, 2, 1]), [L, 2 * V])


@triton.jit
def halves(row):
    """The inverse of `side_by_side`."""
    L: tl.constexpr = row.shape[0]
    C: tl.constexpr = row.shape[1]
    return tl.split(tl.permute(tl.reshape(row, [L, 2, C // 2]), [0, 2, 1]))


# Writing. What a lane has of a row takes COUNT stores, each of which would fill a part of every sector of the
# cache. So the lanes of a warp exchange pixels, and with the k-th store they write all that the k-th of COUNT
# equal parts of the warp has of the row.

WARP = tl.constexpr(32)


@triton.jit
def share_written(L: tl.constexpr, COUNT: tl.constexpr):
    """[L]: which of the COUNT shares of another lane's row each lane writes."""
    return tl.arange(0, L) % WARP // (WARP // COUNT)


@triton.jit
def of_owner(x, k: tl.constexpr, COUNT: tl.constexpr):
    """[L]: the x of the lane whose share each lane writes with the k-th store."""
    L: tl.constexpr = x.shape[0]
    SIZE: tl.constexpr = WARP // COUNT
    source = k * SIZE + tl.arange(0, WARP) % SIZE
    index = tl.broadcast_to(source[None, :], [L // WARP, WARP])
    return tl.reshape(tl.gather(tl.reshape(x, [L // WARP, WARP]), index, 1), [L])


@triton.jit
def _exchanged(a, b, DISTANCE: tl.constexpr):
    # Of lanes DISTANCE apart the left one gets both a, the right one both b; first what was the left one's.
    L: tl.constexpr = a.shape[0]
    M: tl.constexpr = a.shape[1]
    SIZE: tl.constexpr = 2 * DISTANCE
    right = (tl.arange(0, L) // DISTANCE % 2 == 1)[:, None]
    given = tl.reshape(tl.where(right, a, b), [L // SIZE, SIZE, M])
    index = tl.broadcast_to((tl.arange(0, SIZE) ^ DISTANCE)[None, :, None], [L // SIZE, SIZE, M])
    got = tl.reshape(tl.gather(given, index, 1), [L, M])
    return tl.where(right, got, a), tl.where(right, b, got)


@triton.jit
def dealt(row, WIDTH: tl.constexpr, DISTANCE: tl.constexpr = WARP // 2):
    """[L, M] as COUNT = M / WIDTH blocks [L, WIDTH]: what each lane writes with each store.

    Halves of rows change places between the halves of a warp, then quarters between its quarters.
    """
    M: tl.constexpr = row.shape[1]
    if M == WIDTH:
        return (row,)
    else:
        left, right = halves(row)
        first, second = _exchanged(left, right, DISTANCE)
        return dealt(first, WIDTH, DISTANCE // 2) + dealt(second, WIDTH, DISTANCE // 2)


# A patch over several lanes. With S = 1 there are no neighbours, and borders are known when compiling.


@triton.jit
def _is_first(x, S: tl.constexpr):
    return (tl.arange(0, x.shape[0]) % S == 0)[:, None]


@triton.jit
def _is_last(x, S: tl.constexpr):
    return (tl.arange(0, x.shape[0]) % S == S - 1)[:, None]


@triton.jit
def _neighbour(x, STEP: tl.constexpr, S: tl.constexpr):
    # Each lane's x of the lane STEP to the right in its patch; the outermost lanes get something of their own
    # patch.
    L: tl.constexpr = x.shape[0]
    M: tl.constexpr = x.shape[1]
    lane = tl.minimum(tl.maximum(tl.arange(0, S) + STEP, 0), S - 1)
    index = tl.broadcast_to(lane[None, :, None], [L // S, S, M])
    return tl.reshape(tl.gather(tl.reshape(x, [L // S, S, M]), index, 1), [L, M])


@triton.jit
def before(last, border, S: tl.constexpr):
    """What comes before each lane: ``last`` of the lane to its left, or ``border`` at the patch's border."""
    if S == 1:
        return border
    else:
        return tl.where(_is_first(border, S), border, _neighbour(last, -1, S))


@triton.jit
def after(first, border, S: tl.constexpr):
    """What comes after each lane: ``first`` of the lane to its right, or ``border`` at the patch's border."""
    if S == 1:
        return border
    else:
        return tl.where(_is_last(border, S), border, _neighbour(first, 1, S))


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
def patch_sum(x, S: tl.constexpr):
    """The sum of a block [L, M] over each patch, in all of the patch's lanes."""
    L: tl.constexpr = x.shape[0]
    total = tl.sum(x, 1)
    if S > 1:
        of_patch = tl.sum(tl.reshape(total, [L // S, S]), 1)
        total = tl.reshape(tl.broadcast_to(of_patch[:, None], [L // S, S]), [L])
    return total

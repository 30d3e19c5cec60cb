"""Which pixels a lane owns, and how it reads and writes them.

The image is cut into *cells*: the patches of the grid, and where the grid does not cover the image, patches
that stick out of it. A program takes LANES / S neighbouring cells of one image, in reading order; or, where a
vector is several patches wide, GROUP neighbours for each lane, of which an image's row then has a multiple.

Two paths. Aligned (unit stride along rows, rows and base on 16 bytes, no grid offset): pixels are read in
vectors, mostly of 16 bytes; row strides come divided by the vector's width V and are multiplied here, which
tells the compiler that they are multiples of it, whatever they are. General (any strides, any offset): a lane
reads its pixels one by one; neighbouring lanes are near each other in memory, so that the L1 cache turns this
into one pass over it. Writes have no such cache: before them lanes exchange pixels, see `dealt`.
"""

# Tuples grow by concatenation here, since Triton compiles no unpacking.
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from .lanes import dealt, of_owner, share_written
from .memory import load, store


@triton.jit
def grid_start(offset, H, W, N: tl.constexpr, HAS_OFFSET: tl.constexpr):
    """First row and column of the patch grid, and whether they are in range; (0, 0) if not."""
    if HAS_OFFSET:
        dy = tl.load(offset)
        dx = tl.load(offset + 1)
        valid = (dy >= 0) & (dy < N) & (dy <= H - N) & (dx >= 0) & (dx < N) & (dx <= W - N)
        return tl.where(valid, dy, 0), tl.where(valid, dx, 0), valid
    else:
        zero = H - H
        return zero, zero, zero == 0


@triton.jit
def image_offset(index, stride, V: tl.constexpr):
    """Where image or channel ``index`` begins; ``stride`` is divided by V > 0 on the aligned path."""
    if V > 0:
        return tl.cast(index, tl.int64) * (tl.cast(stride, tl.int64) * V)
    else:
        return tl.cast(index, tl.int64) * stride


@triton.jit
def positions(
    GROUP: tl.constexpr,
    block,
    dy,
    dx,
    H,
    W,
    cells,
    cells_per_row,
    N: tl.constexpr,
    C: tl.constexpr,
    LANES: tl.constexpr,
    EVERYWHERE: tl.constexpr,
):
    """Top row and left column of every lane's pixels, and whether its cells are whole patches.

    EVERYWHERE: the cells cover the image, beginning with those that stick out at the top left, instead of
    only its patches.
    """
    S: tl.constexpr = N // C
    groups, groups_per_row = cells // GROUP, cells_per_row // GROUP
    group = (block * LANES + tl.arange(0, LANES)) // S
    row = group // groups_per_row
    column = group - row * groups_per_row
    top = row * N + dy
    left = column * (N * GROUP) + dx
    if EVERYWHERE:
        top = top - tl.where(dy > 0, N, 0)
        left = left - tl.where(dx > 0, N, 0)
    whole = (group < groups) & (top >= 0) & (left >= 0) & (top + N <= H) & (left + N * GROUP <= W)
    # A lane beyond the last cell is put below the image, where nothing is read or written. It would be there
    # anyway; but as a choice the row is not taken apart into its sum again, which would cost registers.
    top = tl.where(group < groups, top, H)
    return top, left + (tl.arange(0, LANES) % S) * C, whole


@triton.jit
def load_row(
    image,
    top,
    left,
    whole,
    y,
    H,
    W,
    row_stride,
    column_stride,
    C: tl.constexpr,
    V: tl.constexpr,
    GROUP: tl.constexpr,
    MASK: tl.constexpr,
):
    """Row ``y`` of every lane: GROUP * C pixels in float32.

    MASK: "whole" reads whole patches, "image" what is in the image, both 0 elsewhere; "none" reads
    everything, and the caller has put it in the image.
    """
    # One by one on the general path.
    WIDTH: tl.constexpr = V if V > 0 else 1
    out = ()
    for k in tl.static_range(GROUP * C // WIDTH):
        x = left + k * WIDTH
        if V > 0:
            pointers = _vectors(image, top, y, x, row_stride, V)
        else:
            pointers = _pixels(image, top, y, x, row_stride, column_stride)
        mask = inside(top + y, x, H, W, V) if MASK == "image" else whole
        out = out + load(pointers, mask, WIDTH, MASK != "none")
    return out


@triton.jit
def _vectors(image, top, row, x, row_stride, V: tl.constexpr):
    # Pointers to V pixels; see `_pixels`.
    stride = tl.cast(row_stride, tl.int64) * V
    start = image + (top.to(tl.int64) * stride + x)
    return start + tl.cast(row, tl.int64) * stride


@triton.jit
def _pixels(image, top, row, x, row_stride, column_stride):
    # Pointers to column x of a row below top: for every row of a patch the same ones and a number.
    start = image + (top.to(tl.int64) * row_stride + x.to(tl.int64) * column_stride)
    return start + tl.cast(row, tl.int64) * row_stride


@triton.jit
def inside(y, x, H, W, V: tl.constexpr):
    """Whether the pixel, or the vector that begins there, is in the image."""
    if V > 0:
        # All of it or nothing, and no cell begins above or to the left.
        return (y < H) & (x < W)
    else:
        # Without a sign negative numbers are large ones.
        return (y.to(tl.uint32) < H.to(tl.uint32)) & (x.to(tl.uint32) < W.to(tl.uint32))


@triton.jit
def places(top, left, C: tl.constexpr, V: tl.constexpr, GROUP: tl.constexpr):
    """Where `store_row` writes: the tops and lefts of its stores, see `dealt`."""
    WIDTH: tl.constexpr = V if V > 0 else 1
    STORES: tl.constexpr = GROUP * C // WIDTH
    if STORES == 1:
        return (top,), (left,)
    else:
        column = WIDTH * share_written(left.shape[0], STORES)
        tops = ()
        lefts = ()
        for k in tl.static_range(STORES):
            tops = tops + (of_owner(top, k, STORES),)
            lefts = lefts + (of_owner(left, k, STORES) + column,)
        return tops, lefts


@triton.jit
def store_row(
    image,
    row,
    tops,
    lefts,
    y,
    H,
    W,
    row_stride,
    column_stride,
    C: tl.constexpr,
    V: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Write row ``y`` of every lane, as far as it is in the image, to `places`; the inverse of `load_row`."""
    WIDTH: tl.constexpr = V if V > 0 else 1
    pixels = dealt(row, GROUP * C, WIDTH)
    for k in tl.static_range(GROUP * C // WIDTH):
        if V > 0:
            pointers = _vectors(image, tops[k], y, lefts[k], row_stride, V)
        else:
            pointers = _pixels(image, tops[k], y, lefts[k], row_stride, column_stride)
        mask = inside(tops[k] + y, lefts[k], H, W, V)
        store(pointers, pixels[k * WIDTH : (k + 1) * WIDTH], mask, WIDTH)

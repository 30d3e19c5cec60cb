"""Which pixels a lane owns, and how it reads and writes them.

The image is cut into *cells*: the patches of the grid, and where the grid does not cover the image, patches
that stick out of it. A program takes LANES / S neighbouring cells of one image, in reading order.

Two paths. Aligned (unit stride along rows, rows and base on 16 bytes, no grid offset): a lane reads its own
pixels 16 bytes at a time, so nothing is exchanged between threads; row strides come divided by the vector's
width V and are multiplied here, which tells the compiler that they are multiples of it, whatever they are.
General (any strides, any offset): a lane reads its pixels one by one; neighbouring lanes are near each other
in memory, so that the cache turns this into one pass over it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .lanes import halves, side_by_side


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
    """Top row and left column of every GROUP-th lane, and whether its cell is a whole patch.

    EVERYWHERE: the cells cover the image, beginning with those that stick out at the top left, instead of
    only its patches.
    """
    S: tl.constexpr = N // C
    # In units of GROUP: so the compiler sees that a group begins at a multiple of its width. A group is 1
    # lane, or several patches, of which each row of the image then has a multiple.
    lane = tl.arange(0, LANES // GROUP)
    cell = (block * (LANES // GROUP) + lane) // S
    row = cell // (cells_per_row // GROUP)
    column = cell - row * (cells_per_row // GROUP)
    cells = cells // GROUP
    top = row * N + dy
    left = column * (N * GROUP) + dx
    if EVERYWHERE:
        top = top - tl.where(dy > 0, N, 0)
        left = left - tl.where(dx > 0, N, 0)
    whole = (cell < cells) & (top >= 0) & (left >= 0) & (top + N <= H) & (left + N <= W)
    # A lane beyond the last cell is put below the image: nothing is read or written there.
    top = tl.where(cell < cells, top, H)
    return top, left + (lane % S) * C, whole


@triton.jit
def load_row(
    image,
    top,
    left,
    whole,
    ROW: tl.constexpr,
    H,
    W,
    row_stride,
    column_stride,
    C: tl.constexpr,
    V: tl.constexpr,
    MASK: tl.constexpr,
):
    """Row ROW of every lane, a block [LANES, C] in float32.

    ``top``, ``left`` and ``whole`` are those of the lanes, or on the aligned path of every (V / C)-th lane,
    if one vector serves several. MASK: "whole" reads whole patches, "image" what is in the image, both 0
    elsewhere; "none" reads everything, and the caller has put it in the image.

    Row by row, because how Triton would deal out a block of several rows to threads depends on its version.
    """
    y = top + ROW
    if V > 0:
        row = _load(_vectors(image, y, left, row_stride, V), y, left, whole, H, W, MASK)
        if V > C:
            row = tl.reshape(row, [top.shape[0] * (V // C), C])
        elif V < C:
            tl.static_assert(C == 2 * V)
            right = _load(_vectors(image, y, left + V, row_stride, V), y, left + V, whole, H, W, MASK)
            row = side_by_side(row, right)
    else:
        a = _load_pixel(image, y, left, whole, H, W, row_stride, column_stride, MASK)
        b = _load_pixel(image, y, left + 1, whole, H, W, row_stride, column_stride, MASK)
        if C == 2:
            row = tl.join(a, b)
        else:
            tl.static_assert(C == 4)
            c = _load_pixel(image, y, left + 2, whole, H, W, row_stride, column_stride, MASK)
            d = _load_pixel(image, y, left + 3, whole, H, W, row_stride, column_stride, MASK)
            row = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [top.shape[0], C])
    return row.to(tl.float32)


@triton.jit
def _vectors(image, y, x, row_stride, V: tl.constexpr):
    # Pointers [lanes, V].
    start = y.to(tl.int64) * (tl.cast(row_stride, tl.int64) * V) + x
    return image + start[:, None] + tl.arange(0, V)[None, :]


@triton.jit
def _load(pointers, y, x, whole, H, W, MASK: tl.constexpr):
    # A vector is all in the image or all out of it.
    if MASK == "none":
        return tl.load(pointers)
    elif MASK == "whole":
        return tl.load(pointers, mask=whole[:, None], other=0.0)
    else:
        return tl.load(pointers, mask=((y < H) & (x < W))[:, None], other=0.0)


@triton.jit
def _load_pixel(image, y, x, whole, H, W, row_stride, column_stride, MASK: tl.constexpr):
    pointers = image + (y.to(tl.int64) * row_stride + x.to(tl.int64) * column_stride)
    if MASK == "none":
        return tl.load(pointers)
    elif MASK == "whole":
        return tl.load(pointers, mask=whole, other=0.0)
    else:
        return tl.load(pointers, mask=(y >= 0) & (y < H) & (x >= 0) & (x < W), other=0.0)


@triton.jit
def store_row(image, row, top, left, ROW: tl.constexpr, H, W, row_stride, column_stride, V: tl.constexpr):
    """Write row ROW of every lane, as far as it is in the image; the inverse of `load_row`."""
    L: tl.constexpr = row.shape[0]
    C: tl.constexpr = row.shape[1]
    row = row.to(image.dtype.element_ty)
    y = top + ROW
    if V > 0:
        pointers = _vectors(image, y, left, row_stride, V)
        inside = ((y < H) & (left < W))[:, None]
        if V < C:
            a, b = halves(row)
            tl.store(pointers, a, mask=inside)
            inside = ((y < H) & (left + V < W))[:, None]
            tl.store(_vectors(image, y, left + V, row_stride, V), b, mask=inside)
        else:
            tl.store(pointers, tl.reshape(row, [L * C // V, V]), mask=inside)
    elif C == 2:
        a, b = tl.split(row)
        _store_pixel(image, a, y, left, H, W, row_stride, column_stride)
        _store_pixel(image, b, y, left + 1, H, W, row_stride, column_stride)
    elif C == 4:
        even, odd = tl.split(tl.reshape(row, [L, 2, 2]))
        a, c = tl.split(even)
        b, d = tl.split(odd)
        _store_pixel(image, a, y, left, H, W, row_stride, column_stride)
        _store_pixel(image, b, y, left + 1, H, W, row_stride, column_stride)
        _store_pixel(image, c, y, left + 2, H, W, row_stride, column_stride)
        _store_pixel(image, d, y, left + 3, H, W, row_stride, column_stride)
    else:
        # Only where pred is aligned and its gradient, of other strides, is not.
        x = left[:, None] + tl.arange(0, C)[None, :]
        _store_pixel(image, row, tl.broadcast_to(y[:, None], [L, C]), x, H, W, row_stride, column_stride)


@triton.jit
def _store_pixel(image, value, y, x, H, W, row_stride, column_stride):
    pointers = image + (y.to(tl.int64) * row_stride + x.to(tl.int64) * column_stride)
    tl.store(pointers, value, mask=(y >= 0) & (y < H) & (x >= 0) & (x < W))

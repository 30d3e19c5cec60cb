"""The kernels over the images, one launch each: value, whose sums `finish` adds up, and gradient.

Each takes an optional pixel term between pred (``x``) and target: PIXEL is "none", "l1", "mse" or
"charbonnier".
"""

# Tuples grow by concatenation here, since Triton compiles no unpacking.
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from . import patch
from .cells import grid_start, image_offset, load_row, places, positions, store_row
from .lanes import columns
from .memory import one_lane_is_one_thread
from .pixels import channel_row, luma_row, pixel_slopes, pixel_terms, slopes_by_sign, with_signs, words


@triton.jit
def _fence(ROW: tl.constexpr, N: tl.constexpr):
    # Sixteen rows of loads, moved up all together, would take more registers than there are. The assembler
    # moves none across a barrier, which costs little: a program has four warps at most.
    if N == 16 and ROW % 2 == 0:
        tl.debug_barrier()


@triton.jit
def _zero(c, channels, CHANNELS: tl.constexpr):
    # 0 in every channel, which the compiler does not know. What it is added to is worked out anew in each
    # turn of a loop over channels. Otherwise the addresses of all rows are, ahead of the loop, and fill the
    # registers.
    return c * (channels - CHANNELS)


@triton.jit
def _row_in_turn(top, i: tl.constexpr, again, ALONE: tl.constexpr):
    # Row i, as `load_row` takes it, in a loop over channels. ALONE: each row's address is worked out in each
    # turn, and not only those of the first row, on which the others then build, one for each column.
    if ALONE:
        return top + (i + again), 0
    else:
        return top + again, i


@triton.jit
def _zeros(COUNT: tl.constexpr, LANES: tl.constexpr):
    out = ()
    for _ in tl.static_range(COUNT):
        out = out + (tl.zeros([LANES], tl.float32),)
    return out


@triton.jit
def _where(condition, x, COUNT: tl.constexpr):
    out = ()
    for k in tl.static_range(COUNT):
        out = out + (tl.where(condition, x[k], 0.0),)
    return out


# Sizes and strides are arguments like any other: an image of another size must not compile anew.
_VALUE_SIZES = (
    "H",
    "W",
    "cells",
    "cells_per_row",
    "blocks",
    "channels",
    "x_image",
    "x_channel",
    "x_row",
    "x_column",
    "t_image",
    "t_channel",
    "t_row",
    "t_column",
)


@triton.jit(do_not_specialize=_VALUE_SIZES)
def value_kernel(
    x,
    target,
    offset,
    partial,
    H,
    W,
    cells,
    cells_per_row,
    blocks,
    channels,
    x_image,
    x_channel,
    x_row,
    x_column,
    t_image,
    t_channel,
    t_row,
    t_column,
    threshold,
    unit,
    e2,
    charbonnier,
    SOBEL: tl.constexpr,
    EIGEN_COHERENCE: tl.constexpr,
    EIGEN_VALUE: tl.constexpr,
    N: tl.constexpr,
    C: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXEL: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    X_V: tl.constexpr,
    T_V: tl.constexpr,
    GROUP: tl.constexpr,
    LANES: tl.constexpr,
):
    """Per program: the sum of its patches' Q and, with PIXEL, after all those, of its pixels' terms."""
    one_lane_is_one_thread(LANES)
    WITH_PIXEL: tl.constexpr = PIXEL != "none"
    S: tl.constexpr = N // C
    program = tl.program_id(0)
    image = program // blocks
    block = program - image * blocks
    dy, dx, _ = grid_start(offset, H, W, N, HAS_OFFSET)
    top, left, whole = positions(GROUP, block, dy, dx, H, W, cells, cells_per_row, N, C, LANES, WITH_PIXEL)
    if WITH_PIXEL:
        target += image_offset(image, t_image, T_V)
    else:
        # Lanes without a patch read the first one, which is cheaper than to mask every load; see `whole`.
        top = tl.where(whole, top, dy)
        left = tl.where(whole, left, dx + (left - dx) % (N * GROUP))
    x += image_offset(image, x_image, X_V)
    MASK: tl.constexpr = "image" if WITH_PIXEL else "none"
    ROW: tl.constexpr = GROUP * C

    if CHANNELS == 1 and not WITH_PIXEL:
        luma = ()
        for i in tl.static_range(N):
            luma = luma + load_row(x, top, left, whole, i, H, W, x_row, x_column, C, X_V, GROUP, "none")
    else:
        luma = _zeros(N * ROW, LANES)
        terms = tl.zeros([LANES], tl.float32)
        # A loop that stays one, of a single channel too: unrolled, the compiler has all loads in flight at
        # once, and registers run out.
        for c in range(channels):
            plane = x + image_offset(c, x_channel, X_V)
            again = _zero(c, channels, CHANNELS)
            rows = ()
            for i in tl.static_range(N):
                _fence(i, N)
                y, j = _row_in_turn(top, i, again, N == 16 or X_V > 0)
                row = load_row(plane, y, left, whole, j, H, W, x_row, x_column, C, X_V, GROUP, MASK)
                rows = rows + luma_row(luma, row, i, c, CHANNELS, ROW)
                if WITH_PIXEL:
                    plane_ = target + image_offset(c, t_channel, T_V)
                    other = load_row(plane_, y, left, whole, j, H, W, t_row, t_column, C, T_V, GROUP, "image")
                    terms += pixel_terms(row, other, top + i, left, H, W, charbonnier, ROW, X_V, PIXEL)
            luma = rows
    if WITH_PIXEL:
        # What a cell that is no patch holds must not show in Q, NaN included.
        luma = _where(whole, luma, N * ROW)

    total = tl.zeros([LANES], tl.float32)
    for g in tl.static_range(GROUP):
        one = columns(luma, g * C, C, N, ROW)
        gx, gy = patch.gradients(one, N, C, SOBEL)
        counted, trace, d, vx, vy = patch.structure(
            gx, gy, whole, unit, threshold, N, C, SOBEL, EIGEN_COHERENCE
        )
        total += patch.value(gx, gy, counted, trace, d, vx, vy, unit, e2, N, C, EIGEN_VALUE)
    if S > 1:
        total = tl.where(tl.arange(0, LANES) % S == 0, total, 0.0)
    tl.store(partial + program, tl.sum(total, 0))
    if WITH_PIXEL:
        tl.store(partial + tl.num_programs(0) + program, tl.sum(terms, 0))


_GRADIENT_SIZES = (
    "H",
    "W",
    "cells",
    "cells_per_row",
    "blocks",
    "channels",
    "x_image",
    "x_channel",
    "x_row",
    "x_column",
    "t_image",
    "t_channel",
    "t_row",
    "t_column",
    "g_image",
    "g_channel",
    "g_row",
    "g_column",
    "grad_output_stride",
)


@triton.jit(do_not_specialize=_GRADIENT_SIZES)
def gradient_kernel(
    x,
    target,
    offset,
    grad_output,
    gradient,
    H,
    W,
    cells,
    cells_per_row,
    blocks,
    channels,
    x_image,
    x_channel,
    x_row,
    x_column,
    t_image,
    t_channel,
    t_row,
    t_column,
    g_image,
    g_channel,
    g_row,
    g_column,
    grad_output_stride,
    threshold,
    unit,
    e2,
    charbonnier,
    q_scale,
    pixel_scale,
    SOBEL: tl.constexpr,
    EIGEN_COHERENCE: tl.constexpr,
    EIGEN_VALUE: tl.constexpr,
    SMOOTH: tl.constexpr,
    N: tl.constexpr,
    C: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXEL: tl.constexpr,
    WITH_Q: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    X_V: tl.constexpr,
    T_V: tl.constexpr,
    GROUP: tl.constexpr,
    LANES: tl.constexpr,
):
    """The gradient of q_scale * (sum of Q over the patches) / patches + pixel_scale * (sum of the pixels'
    terms)."""
    one_lane_is_one_thread(LANES)
    WITH_PIXEL: tl.constexpr = PIXEL != "none"
    program = tl.program_id(0)
    image = program // blocks
    block = program - image * blocks
    dy, dx, valid = grid_start(offset, H, W, N, HAS_OFFSET)
    top, left, whole = positions(GROUP, block, dy, dx, H, W, cells, cells_per_row, N, C, LANES, True)
    upstream = tl.load(grad_output + image.to(tl.int64) * grad_output_stride).to(tl.float32)
    x += image_offset(image, x_image, X_V)
    gradient += image_offset(image, g_image, X_V)
    if WITH_PIXEL:
        target += image_offset(image, t_image, T_V)
    ROW: tl.constexpr = GROUP * C
    # The derivative of |pred - target| needs its sign alone, which is kept from where pred is read for Q, one
    # channel's words after another's. For other pixel terms pred is read once more.
    KEPT: tl.constexpr = WITH_Q and PIXEL == "l1"
    MASK: tl.constexpr = "image" if KEPT else "whole"
    WORDS: tl.constexpr = words(N * ROW)
    signs = ()
    if WITH_Q:
        if CHANNELS == 1:
            luma = ()
            for i in tl.static_range(N):
                row = load_row(x, top, left, whole, i, H, W, x_row, x_column, C, X_V, GROUP, MASK)
                if KEPT:
                    other = load_row(target, top, left, whole, i, H, W, t_row, t_column, C, T_V, GROUP, MASK)
                    signs = with_signs(signs, row, other, i * ROW, ROW)
                luma = luma + row
        else:
            luma = _zeros(N * ROW, LANES)
            if KEPT:
                for _ in tl.static_range(CHANNELS * WORDS):
                    signs = signs + (tl.zeros([LANES], tl.int32),)
            for c in range(channels):
                plane = x + image_offset(c, x_channel, X_V)
                again = _zero(c, channels, CHANNELS)
                rows = ()
                new = ()
                for i in tl.static_range(N):
                    y, j = _row_in_turn(top, i, again, X_V > 0)
                    row = load_row(plane, y, left, whole, j, H, W, x_row, x_column, C, X_V, GROUP, MASK)
                    if KEPT:
                        t_plane = target + image_offset(c, t_channel, T_V)
                        other = load_row(
                            t_plane, y, left, whole, j, H, W, t_row, t_column, C, T_V, GROUP, MASK
                        )
                        new = with_signs(new, row, other, i * ROW, ROW)
                    rows = rows + luma_row(luma, row, i, c, CHANNELS, ROW)
                luma = rows
                signs = signs[WORDS:] + new
        if KEPT:
            # As in the value.
            luma = _where(whole, luma, N * ROW)
        patches = ((H - dy) // N) * ((W - dx) // N)
        scale = upstream * q_scale / patches.to(tl.float32) * (unit * unit)
        scale = tl.where(valid, scale, float("nan"))
        out = ()
        for g in tl.static_range(GROUP):
            one = columns(luma, g * C, C, N, ROW)
            gx, gy = patch.gradients(one, N, C, SOBEL)
            counted, trace, d, vx, vy = patch.structure(
                gx, gy, whole, unit, threshold, N, C, SOBEL, EIGEN_COHERENCE
            )
            k1, k2, v2x, v2y = patch.slopes(
                gx, gy, counted, trace, d, vx, vy, unit, e2, N, C, EIGEN_VALUE, SMOOTH
            )
            k1 = tl.where(counted, k1 * scale, 0.0)
            k2 = tl.where(counted, k2 * scale, 0.0)
            p, q = patch.adjoint(gx, gy, k1, k2, v2x, v2y, N * C)
            out = out + patch.pixels_of(p, q, N, C, SOBEL)
    else:
        out = _zeros(N * ROW, LANES)

    # Where the cells are, once more: from what the compiler cannot know to be the same (channels is
    # CHANNELS), or it would keep it all, with the addresses, in registers that the patch needs.
    again = block
    if WITH_PIXEL:
        again += channels - CHANNELS
    top, left, whole = positions(GROUP, again, dy, dx, H, W, cells, cells_per_row, N, C, LANES, True)
    tops, lefts = places(top, left, C, X_V, GROUP)
    if CHANNELS == 1 and (KEPT or not WITH_PIXEL):
        for i in tl.static_range(N):
            row = columns(out, i * C, C, GROUP, N * C)
            if KEPT:
                row = slopes_by_sign(row, signs, upstream * pixel_scale, i * ROW, ROW)
            store_row(gradient, row, tops, lefts, i, H, W, g_row, g_column, C, X_V, GROUP)
    else:
        for c in range(channels):
            plane = gradient + image_offset(c, g_channel, X_V)
            again = _zero(c, channels, CHANNELS)
            for i in tl.static_range(N):
                _fence(i, N)
                row = channel_row(columns(out, i * C, C, GROUP, N * C), c, CHANNELS, ROW)
                if KEPT:
                    row = slopes_by_sign(row, signs, upstream * pixel_scale, i * ROW, ROW)
                elif WITH_PIXEL:
                    x_plane = x + image_offset(c, x_channel, X_V)
                    if N == 16 and X_V > 0:
                        # Vectors of 16 rows are few, and the assembler does better with their addresses at
                        # hand.
                        y, j = top, i
                    else:
                        y, j = _row_in_turn(top, i, again, X_V > 0)
                    here = load_row(x_plane, y, left, whole, j, H, W, x_row, x_column, C, X_V, GROUP, "image")
                    t_plane = target + image_offset(c, t_channel, T_V)
                    other = load_row(
                        t_plane, y, left, whole, j, H, W, t_row, t_column, C, T_V, GROUP, "image"
                    )
                    row = pixel_slopes(row, here, other, upstream * pixel_scale, charbonnier, ROW, PIXEL)
                store_row(plane, row, tops, lefts, i + again, H, W, g_row, g_column, C, X_V, GROUP)
            signs = signs[WORDS:] + signs[:WORDS]

"""The tiny kernel that finishes a value: it adds up what the programs of `passes.value_kernel` have left."""

from __future__ import annotations

import triton
import triton.language as tl

from .cells import grid_start

_FINISH_SIZES = (
    "H",
    "W",
    "count",
    "images",
    "pixels",
)


@triton.jit(do_not_specialize=_FINISH_SIZES)
def finish_kernel(
    partial,
    value,
    terms,
    offset,
    H,
    W,
    count,
    images,
    weight,
    pixels,
    N: tl.constexpr,
    WITH_PIXEL: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add ``count`` partial sums per program, always in the same order and in float64, to the finished value.

    ``images`` is what the means are divided by. With WITH_PIXEL the value is pixel term - weight * Q, and the
    two are written to ``terms``; else it is weight * Q.
    """
    program = tl.program_id(0)
    outputs = tl.num_programs(0)
    q = _ordered_sum(partial + program.to(tl.int64) * count, count, BLOCK)
    dy, dx, valid = grid_start(offset, H, W, N, HAS_OFFSET)
    patches = ((H - dy) // N).to(tl.float64) * ((W - dx) // N).to(tl.float64)
    q = q / (patches * images)
    q = tl.where(valid, q, float("nan"))
    if WITH_PIXEL:
        second = partial + (outputs + program).to(tl.int64) * count
        pixel = _ordered_sum(second, count, BLOCK) / (pixels.to(tl.float64) * images)
        tl.store(value + program, (pixel - weight * q).to(tl.float32))
        tl.store(terms + program, pixel.to(tl.float32))
        tl.store(terms + outputs + program, q.to(tl.float32))
    else:
        tl.store(value + program, (weight * q).to(tl.float32))


@triton.jit
def _ordered_sum(pointer, count, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, count, BLOCK):
        total += tl.load(pointer + start + lane, mask=start + lane < count, other=0.0).to(tl.float64)
    return tl.sum(total, 0)

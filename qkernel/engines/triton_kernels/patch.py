"""The mathematics of one patch, on the tuples of `lanes`; see `qkernel.reference` for it in plain
words.

Gradients are kept in whole multiples of the published ones, 2 G (central) or 8 G (sobel), and pixels
undivided by data_range: `unit` is what G was multiplied by, inverted. So nothing is scaled pixel by pixel.

Fused multiply-adds are written out and the compiler's own are off: value and gradient kernels round alike,
whatever surrounds them, so the gate decides alike in both.
"""

# Tuples grow by concatenation here, since Triton compiles no unpacking.
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from .lanes import (
    after,
    before,
    doubled_if_first,
    doubled_if_last,
    patch_sum,
    transposed,
    zero_if_first,
    zero_if_last,
)

#: Rank 1: s2 <= RANK_1 * s1 is rounding noise; 4 * 2^-23, as in the reference.
RANK_1_SQUARED = tl.constexpr((4.0 * 2.0**-23) ** 2)

#: A trace below the smallest normal float32 is 0: what is divided by it must stay finite.
SMALLEST = tl.constexpr(2.0**-126)

COHERENCE_FLOOR = tl.constexpr(1e-10)


# One direction: COUNT blocks in a row, in S lanes. Rows of a patch are in one lane, S = 1; its columns may
# not be.


@triton.jit
def _central(x, COUNT: tl.constexpr, S: tl.constexpr):
    # Twice the central difference; one-sided at the border.
    left = before(x[COUNT - 1], x[0], S)
    right = after(x[0], x[COUNT - 1], S)
    out = (doubled_if_first(x[1] - left, S),)
    for k in tl.static_range(1, COUNT - 1):
        out = out + (x[k + 1] - x[k - 1],)
    return out + (doubled_if_last(right - x[COUNT - 2], S),)


@triton.jit
def _central_adjoint(p, COUNT: tl.constexpr, S: tl.constexpr):
    first = doubled_if_first(p[0], S)
    last = doubled_if_last(p[COUNT - 1], S)
    left = before(last, -first, S)
    right = after(first, -last, S)
    if COUNT == 2:
        return (left - last, first - right)
    else:
        out = (left - p[1], first - p[2])
        for k in tl.static_range(2, COUNT - 2):
            out = out + (p[k - 1] - p[k + 1],)
        return out + (p[COUNT - 3] - last, p[COUNT - 2] - right)


@triton.jit
def _mirrored(x, COUNT: tl.constexpr, S: tl.constexpr):
    # The difference of the neighbours; 0 at the border, whose neighbours are each other's mirror image.
    left = before(x[COUNT - 1], x[0], S)
    right = after(x[0], x[COUNT - 1], S)
    out = (zero_if_first(x[1] - left, S),)
    for k in tl.static_range(1, COUNT - 1):
        out = out + (x[k + 1] - x[k - 1],)
    return out + (zero_if_last(right - x[COUNT - 2], S),)


@triton.jit
def _mirrored_adjoint(p, COUNT: tl.constexpr, S: tl.constexpr):
    first = zero_if_first(p[0], S)
    last = zero_if_last(p[COUNT - 1], S)
    if S == 1:
        out = (-p[1], -p[2])
        for k in tl.static_range(2, COUNT - 2):
            out = out + (p[k - 1] - p[k + 1],)
        return out + (p[COUNT - 3], p[COUNT - 2])
    else:
        left = before(last, first, S)
        right = after(first, last, S)
        if COUNT == 2:
            return (left - last, first - right)
        else:
            out = (left - p[1], first - p[2])
            for k in tl.static_range(2, COUNT - 2):
                out = out + (p[k - 1] - p[k + 1],)
            return out + (p[COUNT - 3] - last, p[COUNT - 2] - right)


@triton.jit
def _smoothed(x, COUNT: tl.constexpr, S: tl.constexpr):
    # (1, 2, 1), mirrored at the border.
    out = (tl.fma(x[0], 2.0, before(x[COUNT - 1], x[1], S) + x[1]),)
    for k in tl.static_range(1, COUNT - 1):
        out = out + (tl.fma(x[k], 2.0, x[k - 1] + x[k + 1]),)
    return out + (tl.fma(x[COUNT - 1], 2.0, x[COUNT - 2] + after(x[0], x[COUNT - 2], S)),)


@triton.jit
def _smoothed_adjoint(p, COUNT: tl.constexpr, S: tl.constexpr):
    # The border is seen twice by its neighbour, and has itself one neighbour less.
    first = doubled_if_first(p[0], S)
    last = doubled_if_last(p[COUNT - 1], S)
    if S == 1:
        out = (tl.fma(p[0], 2.0, p[1]),)
    elif COUNT == 2:
        out = (tl.fma(p[0], 2.0, before(last, tl.zeros_like(last), S) + last),)
    else:
        out = (tl.fma(p[0], 2.0, before(last, tl.zeros_like(last), S) + p[1]),)
    for k in tl.static_range(1, COUNT - 1):
        left = first if k == 1 else p[k - 1]
        right = last if k == COUNT - 2 else p[k + 1]
        out = out + (tl.fma(p[k], 2.0, left + right),)
    if S == 1:
        return out + (tl.fma(p[COUNT - 1], 2.0, p[COUNT - 2]),)
    elif COUNT == 2:
        return out + (tl.fma(p[1], 2.0, first + after(first, tl.zeros_like(first), S)),)
    else:
        return out + (tl.fma(p[COUNT - 1], 2.0, p[COUNT - 2] + after(first, tl.zeros_like(first), S)),)


@triton.jit
def _lines(F: tl.constexpr, x, COUNT: tl.constexpr, S: tl.constexpr, LINES: tl.constexpr):
    """F of each of LINES lines."""
    out = ()
    for k in tl.static_range(LINES):
        out = out + F(x[k * COUNT : (k + 1) * COUNT], COUNT, S)
    return out


@triton.jit
def _across(F: tl.constexpr, x, N: tl.constexpr, C: tl.constexpr):
    return _lines(F, x, C, N // C, N)


@triton.jit
def _down(F: tl.constexpr, x, N: tl.constexpr, C: tl.constexpr):
    return transposed(_lines(F, transposed(x, C), N, 1, C), N)


@triton.jit
def gradients(x, N: tl.constexpr, C: tl.constexpr, SOBEL: tl.constexpr):
    """Horizontal and vertical gradients of a patch, times 2 (central) or 8 (sobel)."""
    if SOBEL:
        # Differences first, then smoothing: neighbours of similar brightness differ exactly, so a weak
        # gradient on a bright patch keeps its digits.
        gx = _down(_smoothed, _across(_mirrored, x, N, C), N, C)
        gy = _across(_smoothed, _down(_mirrored, x, N, C), N, C)
        return gx, gy
    else:
        return _across(_central, x, N, C), _down(_central, x, N, C)


@triton.jit
def pixels_of(p, q, N: tl.constexpr, C: tl.constexpr, SOBEL: tl.constexpr):
    """The transpose of `gradients`, applied to (p, q)."""
    if SOBEL:
        horizontal = _across(_mirrored_adjoint, _down(_smoothed_adjoint, p, N, C), N, C)
        vertical = _down(_mirrored_adjoint, _across(_smoothed_adjoint, q, N, C), N, C)
    else:
        horizontal = _across(_central_adjoint, p, N, C)
        vertical = _down(_central_adjoint, q, N, C)
    out = ()
    for k in tl.static_range(N * C):
        out = out + (horizontal[k] + vertical[k],)
    return out


@triton.jit
def total(x, COUNT: tl.constexpr):
    """The sum of COUNT blocks, by pairs, which loses fewer digits than one chain."""
    if COUNT == 1:
        return x[0]
    else:
        return total(x[: COUNT // 2], COUNT // 2) + total(x[COUNT // 2 :], COUNT // 2)


@triton.jit
def _inner(p, q, N: tl.constexpr, C: tl.constexpr, SKIP: tl.constexpr):
    # The sum of p q over each patch: along each row, then over the rows. SKIP: the outermost columns are
    # zeros.
    J: tl.constexpr = 1 if SKIP and N == C else 0
    rows = ()
    for i in tl.static_range(N):
        row = p[i * C + J] * q[i * C + J]
        for j in tl.static_range(J + 1, C - J):
            row = tl.fma(p[i * C + j], q[i * C + j], row)
        rows = rows + (row,)
    return patch_sum(total(rows, N), N // C)


@triton.jit
def along(gx, gy, vx, vy, COUNT: tl.constexpr):
    """g . v of every pixel."""
    out = ()
    for k in tl.static_range(COUNT):
        out = out + (tl.fma(gx[k], vx, gy[k] * vy),)
    return out


@triton.jit
def adjoint(gx, gy, k1, k2, v2x, v2y, COUNT: tl.constexpr):
    """dQ/dG of every pixel from the `slopes`, as a horizontal and a vertical part."""
    across = along(gx, gy, v2x, v2y, COUNT)
    p = ()
    q = ()
    for k in tl.static_range(COUNT):
        p = p + (tl.fma(gx[k], k1, across[k] * (k2 * v2x)),)
        q = q + (tl.fma(gy[k], k1, across[k] * (k2 * v2y)),)
    return p, q


@triton.jit
def structure(
    gx,
    gy,
    whole,
    unit,
    threshold,
    N: tl.constexpr,
    C: tl.constexpr,
    SOBEL: tl.constexpr,
    EIGEN_COHERENCE: tl.constexpr,
):
    """The structure tensor of each patch, and the gate: the one decision that value and gradient share.

    Returns whether the patch counts, its trace in published units, (l1 - l2) / trace, and the unit vector of
    the principal direction. Of a patch that does not count the numbers are finite and mean nothing.
    """
    # Sobel has no gradient across the border: those pixels would add zeros.
    a = _inner(gx, gx, N, C, SOBEL)
    b = _inner(gx, gy, N, C, SOBEL)
    c = _inner(gy, gy, N, C, False)
    trace = (a + c) * (unit * unit)
    flat = trace < SMALLEST
    scale = tl.where(flat, 1.0, a + c)
    u = (a - c) / scale
    w = (b + b) / scale
    # All roots are the rounded ones: the quick one takes numbers below the smallest normal one for 0.
    d = tl.sqrt_rn(tl.fma(u, u, w * w))
    if EIGEN_COHERENCE:
        coherence = d * trace / (trace + COHERENCE_FLOOR)
    else:
        coherence = d / (1.0 + tl.sqrt_rn(tl.maximum(tl.fma(-d, d, 1.0), 0.0)))
    # Ordered comparisons are false for NaN: such a patch counts, and its NaN reaches the value.
    counted = whole & ((flat | (coherence <= threshold)) == 0)
    trace = tl.where(counted, trace, 1.0)
    u = tl.where(counted, u, 1.0)
    w = tl.where(counted, w, 0.0)
    d = tl.where(counted, d, 1.0)
    # d (cos 2t, sin 2t) = (u, w): the larger of cos t and sin t by the half-angle formula, the other by
    # division, so that neither cancels.
    large = tl.sqrt_rn(tl.fma(tl.abs(u) / d, 0.5, 0.5))
    small = w / d / (large + large)
    steep = u < 0
    return counted, trace, d, tl.where(steep, small, large), tl.where(steep, large, small)


@triton.jit
def value(
    gx, gy, counted, trace, d, vx, vy, unit, e2, N: tl.constexpr, C: tl.constexpr, EIGEN_VALUE: tl.constexpr
):
    """Q of each patch, 0 where it does not count."""
    l1 = trace * tl.fma(d, 0.5, 0.5)
    if EIGEN_VALUE:
        q = l1 * (d * trace / (trace + 2.0 * e2 + COHERENCE_FLOOR))
    else:
        # The small eigenvalue from the pixels: the determinant has lost half its digits. An error t of the
        # angle adds t^2 l1, so at most t s1 to s2; that much a value takes. A gradient needs `refined`.
        across = along(gx, gy, -vy, vx, N * C)
        l2 = _inner(across, across, N, C, False) * (unit * unit)
        s1 = tl.sqrt_rn(l1 + e2)
        s = s1 + tl.sqrt_rn(l2 + e2)
        q = s1 * (d * trace / (s * s))
    return tl.where(counted, q, 0.0)


@triton.jit
def slopes(
    gx,
    gy,
    counted,
    trace,
    d,
    vx,
    vy,
    unit,
    e2,
    N: tl.constexpr,
    C: tl.constexpr,
    EIGEN_VALUE: tl.constexpr,
    SMOOTH: tl.constexpr,
):
    """k1, k2 and a unit vector v2 such that dQ/dG = k1 g + k2 (g . v2) v2' at every pixel.

    This is dQ/ds1 u1 v1' + dQ/ds2 u2 v2', with g = p1 v1 + p2 v2: only the small p2 is multiplied by what
    grows as 1 / s2.
    """
    l1 = trace * tl.fma(d, 0.5, 0.5)
    v2x = -vy
    v2y = vx
    if EIGEN_VALUE:
        whole = trace + 2.0 * e2 + COHERENCE_FLOOR
        ratio = d * trace / whole
        part = l1 / whole
        k1 = 2.0 * (ratio + part - part * ratio)
        k2 = -2.0 * (ratio + 2.0 * part)
    else:
        # One more rotation: v2 is off by rounding, a fraction s1 / s2 of which would show in u2 = G v2 / s2.
        across = along(gx, gy, v2x, v2y, N * C)
        l2 = _inner(across, across, N, C, False) * (unit * unit)
        mixed = tl.fma(_inner(across, gx, N, C, False), vx, _inner(across, gy, N, C, False) * vy)
        mixed = mixed * (unit * unit)
        angle = mixed / (trace * d)
        v2x = tl.fma(-angle, vx, v2x)
        v2y = tl.fma(-angle, vy, v2y)
        l2 = tl.fma(-angle, mixed, l2)
        s1 = tl.sqrt_rn(l1 + e2)
        if SMOOTH:
            rank_1 = counted != counted
            s2 = tl.sqrt_rn(tl.where(l2 < 0, 0.0, l2) + e2)
        else:
            # Rank 1: s2 has no direction to grow in, and 0 is a subgradient.
            rank_1 = l2 <= l1 * RANK_1_SQUARED
            s2 = tl.sqrt_rn(tl.where(rank_1, 1.0, l2))
        r = tl.where(rank_1, 0.0, s2 / s1)
        inverse = 1.0 / ((1.0 + r) * (1.0 + r) * s1)
        k1 = (1.0 + 2.0 * r - r * r) * inverse
        # dQ/ds2 / s2 = -2 / (1 + r)^2 / s2
        k2 = tl.where(rank_1, 0.0, -2.0 * inverse * (s1 / s2)) - k1
    return tl.where(counted, k1, 0.0), tl.where(counted, k2, 0.0), v2x, v2y

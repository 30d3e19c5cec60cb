// The gradient of a patch whose pixels lie in one thread's registers, and its adjoint.
//
// No pixel is multiplied by the operators' 1/2 or 1/8: they are computed in units of it, and the host makes up for it
// in the data range (`unit`); both are powers of two, so nothing is rounded. A central difference at the border then
// counts double (weight 2), which costs nothing either: it goes into the factors of whole rows and columns. Sobel's
// gradient across the border is 0 whatever the pixels (weight 0). Everything is unrolled: the weights are constants.
//
// x is N x N. dx and dy are differences without their weights wx and wy.
#pragma once

#include "lanes.h"

namespace qkernel::cuda {

// Zhu and Milanfar's: central differences, one-sided at the patch border.
template <int N>
struct Central {
    static constexpr float unit = 2;
    static constexpr bool of_singular_values = true;

    static constexpr QKERNEL_INLINE int weight(int k) { return k == 0 || k == N - 1 ? 2 : 1; }

    template <class F>
    static QKERNEL_INLINE F dx(const F* x, int r, int k) {
        return x[r * N + (k == N - 1 ? k : k + 1)] - x[r * N + (k == 0 ? 0 : k - 1)];
    }
    template <class F>
    static QKERNEL_INLINE F dy(const F* x, int r, int k) {
        return x[(r == N - 1 ? r : r + 1) * N + k] - x[(r == 0 ? 0 : r - 1) * N + k];
    }

    // sum + sign * weight^2 * h: what the difference at k hands to a pixel beside it.
    template <class F>
    static QKERNEL_INLINE F hand_on(F sum, F h, int k, float sign) {
        if (weight(k) == 2) return fma(F(4 * sign), h, sum);
        return sign > 0 ? sum + h : sum - h;
    }

    // What the differences along a row hand to its pixel k. At the border a pixel is the subtrahend, or the minuend,
    // of two differences.
    template <class F>
    static QKERNEL_INLINE F along_row(const F* hx, int k) {
        const int left = k == 0 ? 0 : k - 1, right = k == N - 1 ? k : k + 1;
        F sum = hx[left];
        if (weight(left) == 2) sum = sum * F(k == 0 ? -4.0f : 4.0f);
        return hand_on(sum, hx[right], right, k == N - 1 ? 1.0f : -1.0f);
    }

    // Row r of dQ/dx, from the rows of hx and hy up to r + 1.
    template <class F>
    static QKERNEL_INLINE void adjoint_row(const F* hx, const F* hy, int r, F* out) {
        const int above = r == 0 ? 0 : r - 1, below = r == N - 1 ? r : r + 1;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            F sum = along_row(hx + r * N, k);
            sum = hand_on(sum, hy[above * N + k], above, r == 0 ? -1.0f : 1.0f);
            out[k] = hand_on(sum, hy[below * N + k], below, r == N - 1 ? 1.0f : -1.0f);
        }
    }
};

// The released code's: 3x3 Sobel with mirrored border. The difference comes first: it is exact for neighbours of
// similar brightness, so a weak gradient on a bright patch keeps its digits.
template <int N>
struct Sobel {
    static constexpr float unit = 8;
    static constexpr bool of_singular_values = false;

    static constexpr QKERNEL_INLINE int weight(int k) { return k == 0 || k == N - 1 ? 0 : 1; }
    static constexpr QKERNEL_INLINE int mirrored(int k) { return k < 0 ? 1 : k == N ? N - 2 : k; }

    template <class F>
    static QKERNEL_INLINE F dx(const F* x, int r, int k) {
        const auto at = [&](int row) { return x[row * N + k + 1] - x[row * N + k - 1]; };
        return fma(F(2.0f), at(r), at(mirrored(r - 1)) + at(mirrored(r + 1)));
    }
    template <class F>
    static QKERNEL_INLINE F dy(const F* x, int r, int k) {
        const auto at = [&](int column) { return x[(r + 1) * N + column] - x[(r - 1) * N + column]; };
        return fma(F(2.0f), at(k), at(mirrored(k - 1)) + at(mirrored(k + 1)));
    }

    // sum + what smoothing at j hands to its neighbour: at the border twice as much, being mirrored.
    template <class F>
    static QKERNEL_INLINE F hand_on(F sum, F h, int j) {
        return j == 0 || j == N - 1 ? fma(F(2.0f), h, sum) : sum + h;
    }
    template <class F>
    static QKERNEL_INLINE F smooth_adjoint(const F* line, int stride, int j) {
        F sum = line[j * stride] + line[j * stride];
        if (j > 0) sum = hand_on(sum, line[(j - 1) * stride], j - 1);
        if (j < N - 1) sum = hand_on(sum, line[(j + 1) * stride], j + 1);
        return sum;
    }

    template <class F>
    static QKERNEL_INLINE void adjoint_row(const F* hx, const F* hy, int r, F* out) {
#pragma unroll
        for (int k = 0; k < N; ++k) {
            F sum(0.0f);
            if (k >= 2) sum = smooth_adjoint(hx + k - 1, N, r);
            if (k + 1 < N - 1) sum = sum - smooth_adjoint(hx + k + 1, N, r);
            if (r >= 2) sum = sum + smooth_adjoint(hy + (r - 1) * N, 1, k);
            if (r + 1 < N - 1) sum = sum - smooth_adjoint(hy + (r + 1) * N, 1, k);
            out[k] = sum;
        }
    }
};

// Sums over a patch are those of its rows, added in pairs, in pairs of pairs and so on: the order in which lanes with a
// row each add by exchanges (spread.h), so that every kernel that holds patches in
// registers gets the same bits. add(r, sum of row r), in turn.
template <int N, class T>
struct RowTree {
    static_assert(N == 4 || N == 8, "a power of two");
    static constexpr int levels = N == 8 ? 3 : 2;
    T of[levels + 1];

    QKERNEL_INLINE void add(int r, T sum) {
        int level = 0;
#pragma unroll
        for (; level < levels && (r >> level) % 2; ++level) sum = of[level] + sum;
        of[level] = sum;
    }
    QKERNEL_INLINE T total() const { return of[levels]; }
};

template <class F>
QKERNEL_INLINE Moments<F> operator+(const Moments<F>& m, const Moments<F>& n) {
    return {m.a + n.a, m.b + n.b, m.c + n.c};
}

// Of row r, but for the row's own weight: {a, b over it, c over its square}. Without VERTICAL b and c are 0.
template <class Operator, int N, bool VERTICAL, class F>
QKERNEL_INLINE Moments<F> row_moments(const F* x, int r) {
    const F zero(0.0f);
    F a[2] = {zero, zero}, b[2] = {zero, zero}, c = zero;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const int wx = Operator::weight(k);
        F dx = zero, dy = zero;
        if (wx) dx = Operator::dx(x, r, k);
        if (VERTICAL) dy = Operator::dy(x, r, k);
        if (wx) a[wx - 1] = fma(dx, dx, a[wx - 1]);
        if (wx && VERTICAL) b[wx - 1] = fma(dx, dy, b[wx - 1]);
        if (VERTICAL) c = fma(dy, dy, c);
    }
    if (Operator::weight(0) == 0) return {a[0], b[0], c};
    return {fma(F(4.0f), a[1], a[0]), fma(F(2.0f), b[1], b[0]), c};
}

template <class Operator, int N, class F>
QKERNEL_INLINE Moments<F> moments_of(const F* x) {
    RowTree<N, Moments<F>> rows;
#pragma unroll
    for (int r = 0; r < N; ++r) {
        const int wy = Operator::weight(r);
        Moments<F> m = wy ? row_moments<Operator, N, true>(x, r) : row_moments<Operator, N, false>(x, r);
        if (wy == 2) m = {m.a, m.b + m.b, F(4.0f) * m.c};
        rows.add(r, m);
    }
    return rows.total();
}

// The gradients in the frame of the principal direction, without multiplying any by its weight: the factors by weight.
template <class F>
struct Frame {
    F along_x[2], along_y[2], across_x[2], across_y[2];

    QKERNEL_INLINE explicit Frame(Direction<F> v) {
        const F minus_y = F(0.0f) - v.y;
        along_x[0] = v.x, along_y[0] = v.y, across_x[0] = minus_y, across_y[0] = v.x;
        along_x[1] = v.x + v.x, along_y[1] = v.y + v.y, across_x[1] = minus_y + minus_y, across_y[1] = v.x + v.x;
    }
    // p1 = gx vx + gy vy
    QKERNEL_INLINE F along(F dx, int wx, F dy, int wy) const { return combine(dx, wx, along_x, dy, wy, along_y); }
    // p2 = gy vx - gx vy
    QKERNEL_INLINE F across(F dx, int wx, F dy, int wy) const { return combine(dx, wx, across_x, dy, wy, across_y); }

  private:
    static QKERNEL_INLINE F combine(F dx, int wx, const F* by_x, F dy, int wy, const F* by_y) {
        if (wx && wy) return fma(dy, by_y[wy - 1], dx * by_x[wx - 1]);
        if (wx) return dx * by_x[wx - 1];
        if (wy) return dy * by_y[wy - 1];
        return F(0.0f);
    }
};

// sum p2^2, and sum p1 p2
template <class F>
struct Across {
    F squares, mixed;
};

template <class F>
QKERNEL_INLINE Across<F> operator+(const Across<F>& a, const Across<F>& b) {
    return {a.squares + b.squares, a.mixed + b.mixed};
}

// `mixed` is summed if MIXED.
template <class Operator, int N, bool MIXED, class F>
QKERNEL_INLINE Across<F> sums_across(const F* x, Direction<F> v) {
    const Frame<F> frame(v);
    const F zero(0.0f);
    RowTree<N, Across<F>> rows;
#pragma unroll
    for (int r = 0; r < N; ++r) {
        Across<F> row{zero, zero};
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const int wx = Operator::weight(k), wy = Operator::weight(r);
            const F dx = wx ? Operator::dx(x, r, k) : zero, dy = wy ? Operator::dy(x, r, k) : zero;
            const F p2 = frame.across(dx, wx, dy, wy);
            row.squares = fma(p2, p2, row.squares);
            if (MIXED) row.mixed = fma(frame.along(dx, wx, dy, wy), p2, row.mixed);
        }
        rows.add(r, row);
    }
    return rows.total();
}

// dQ/dx / along, row by row: emit(r, row). dQ/dG = along (G + ratio p2 v2') saves p1 and, along being applied at the
// end together with grad_output, two products for each pixel. p2 is formed before it is multiplied by the large ratio,
// so nothing cancels that the definition's own terms do not.
template <class Operator, int N, class F, class Emit>
QKERNEL_INLINE void adjoint_rows(const F* x, Direction<F> v, F ratio, Emit emit) {
    const Frame<F> frame(v);
    const F half(0.5f), cx = ratio * frame.across_x[0], cy = ratio * frame.across_y[0];
    const F half_cx = half * cx, half_cy = half * cy;
    F hx[N * N], hy[N * N], out[N];
#pragma unroll
    for (int r = 0; r <= N; ++r) {
        if (r < N) {
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const int wx = Operator::weight(k), wy = Operator::weight(r);
                const F dx = wx ? Operator::dx(x, r, k) : F(0.0f), dy = wy ? Operator::dy(x, r, k) : F(0.0f);
                const F p2 = frame.across(dx, wx, dy, wy);
                // dQ/d(gx) / weight, handed on with weight^2.
                hx[r * N + k] = wx ? fma(wx == 2 ? half_cx : cx, p2, dx) : F(0.0f);
                hy[r * N + k] = wy ? fma(wy == 2 ? half_cy : cy, p2, dy) : F(0.0f);
            }
        }
        if (r > 0) {
            Operator::adjoint_row(hx, hy, r - 1, out);
            emit(r - 1, out);
        }
    }
}

}  // namespace qkernel::cuda

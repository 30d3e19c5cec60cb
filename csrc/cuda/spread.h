// The gradient's kernels for few patches of 8 x 8: a lane for a row, eight lanes for a patch.
//
// With a patch to a lane a small batch does not fill a GPU, and the time goes into the two thousand instructions that
// its few warps take one after the other. Here eight times as many warps take a third of them each. For many patches it
// is the slower way: neighbours and sums are exchanged, and every lane works out what the patch has in common. The
// forward pass, with half the instructions, does not gain.
//
// Every sum is taken in the order of the other kernels in float32 (RowTree): the same patches count, and Q's gradient has
// the same bits.
#pragma once

#include "registers.h"

namespace qkernel::cuda {

// A row of a patch and its neighbours, in the registers of a lane; see WholePatch.
template <class Operator, int L>
struct PatchRow {
    using F = Lanes<float, L>;
    using U = Lanes<std::uint32_t, L>;
    using Mask = Lanes<bool, L>;
    static constexpr int N = 8;

    F x[3 * N];  // the row above, the row, the row below, as the operator continues the patch
    Mask top, bottom, border;

    // Of row number `row` with the pixels `own`.
    QKERNEL_INLINE PatchRow(const U& row, const F* own)
        : top(row == U(0u)), bottom(row == U(N - 1u)), border(top | bottom) {
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const F above = neighbour(own[k], -1), below = neighbour(own[k], 1);
            // Central differences are one-sided at the border, Sobel's smoothing is mirrored.
            const bool mirrored = Operator::weight(0) == 0;
            x[k] = select(top, mirrored ? below : own[k], above);
            x[N + k] = own[k];
            x[2 * N + k] = select(bottom, mirrored ? above : own[k], below);
        }
    }

    QKERNEL_INLINE F dx(int k) const { return Operator::dx(x, 1, k); }
    QKERNEL_INLINE F dy(int k) const { return Operator::dy(x, 1, k); }
    // times the row's weight, or its square: exact.
    QKERNEL_INLINE F weighted(F a) const {
        return select(border, Operator::weight(0) == 0 ? F(0.0f) : a + a, a);
    }
    QKERNEL_INLINE F weighted_twice(F a) const {
        return select(border, Operator::weight(0) == 0 ? F(0.0f) : F(4.0f) * a, a);
    }

    template <class T>
    static QKERNEL_INLINE T over_rows(T sum) {
#pragma unroll
        for (int mask = 1; mask < N; mask *= 2) sum = sum + exchanged(sum, mask);
        return sum;
    }
    static QKERNEL_INLINE Moments<F> exchanged(const Moments<F>& m, int mask) {
        return {exchange(m.a, mask), exchange(m.b, mask), exchange(m.c, mask)};
    }
    static QKERNEL_INLINE Across<F> exchanged(const Across<F>& a, int mask) {
        return {exchange(a.squares, mask), exchange(a.mixed, mask)};
    }

    QKERNEL_INLINE Moments<F> moments() const {
        Moments<F> m = row_moments<Operator, N, true>(x, 1);
        m.b = weighted(m.b);
        m.c = weighted_twice(m.c);
        return over_rows(m);
    }
    template <bool MIXED>
    QKERNEL_INLINE Across<F> across(Direction<F> v) const {
        const Frame<F> frame(v);
        Across<F> row{F(0.0f), F(0.0f)};
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const int wx = Operator::weight(k);
            const F gx = wx ? dx(k) : F(0.0f), gy = weighted(dy(k));
            const F p2 = frame.across(gx, wx, gy, 1);
            row.squares = fma(p2, p2, row.squares);
            if (MIXED) row.mixed = fma(frame.along(gx, wx, gy, 1), p2, row.mixed);
        }
        return over_rows(row);
    }
    // Few enough registers hold a row that the compiler may keep them.
    QKERNEL_INLINE void forget_differences() const {}

    // The row of dQ/dx / along; see adjoint_rows.
    QKERNEL_INLINE void adjoint(Direction<F> v, F ratio, F* out) const {
        const Frame<F> frame(v);
        const F half(0.5f), zero(0.0f), cx = ratio * frame.across_x[0], cy = ratio * frame.across_y[0];
        const F half_cx = half * cx, half_cy = half * cy;
        constexpr bool sobel = Operator::weight(0) == 0;
        F hx[N], hy[N];
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const int wx = Operator::weight(k);
            const F gx = wx ? dx(k) : zero, gy = dy(k);
            const F p2 = frame.across(gx, wx, weighted(gy), 1);
            hx[k] = wx ? fma(wx == 2 ? half_cx : cx, p2, gx) : zero;
            hy[k] = fma(select(border, half_cy, cy), p2, gy);
            if (sobel) hy[k] = select(border, zero, hy[k]);
        }
        if constexpr (sobel)
            sobel_adjoint(hx, hy, out);
        else
            central_adjoint(hx, hy, out);
    }

  private:
    QKERNEL_INLINE void central_adjoint(const F* hx, const F* hy, F* out) const {
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const F handed = weighted_twice(hy[k]), above = neighbour(handed, -1), below = neighbour(handed, 1);
            // At the border a pixel is the subtrahend, or the minuend, of two differences.
            F sum = Central<N>::along_row(hx, k);
            sum = select(top, sum - handed, sum + above);
            out[k] = select(bottom, sum + handed, sum - below);
        }
    }
    QKERNEL_INLINE void sobel_adjoint(const F* hx, const F* hy, F* out) const {
        const F zero(0.0f);
        F smooth_x[N], smooth_y[N];
#pragma unroll
        for (int k = 0; k < N; ++k) {
            // Smoothing at the border hands its neighbour twice as much, being mirrored.
            const F handed = select(border, hx[k] + hx[k], hx[k]);
            const F above = neighbour(handed, -1), below = neighbour(handed, 1);
            smooth_x[k] = ((hx[k] + hx[k]) + select(top, zero, above)) + select(bottom, zero, below);
            smooth_y[k] = Sobel<N>::smooth_adjoint(hy, 1, k);
        }
#pragma unroll
        for (int k = 0; k < N; ++k) {
            // 0 in the rows of the border, and so past them, where the next patch begins.
            const F above = neighbour(smooth_y[k], -1), below = neighbour(smooth_y[k], 1);
            F sum = zero;
            if (k >= 2) sum = smooth_x[k - 1];
            if (k + 1 < N - 1) sum = sum - smooth_x[k + 1];
            out[k] = (sum + above) - below;
        }
    }
};

// What `Direct` computes backward, for calls that it could compute; the gradient may lie anyhow.
template <class Operator, class Storage, bool BACKWARD, Pixel PIXEL, int CHANNELS>
struct Spread {
    static_assert(BACKWARD, "the forward pass has no such kernel");
    using Scalar = float;
    static constexpr int N = 8, patches_of_warp = 32 / N;
    static constexpr bool backward = true, sees_outside = true, comes_early = true;
    static constexpr int threads = 128, blocks = 4;
    static constexpr int scratch = 0;

    template <int L>
    static QKERNEL_INLINE void warp(const Job& job, std::int64_t image, std::int64_t task, float*) {
        using F = Lanes<float, L>;
        using I = Lanes<std::int64_t, L>;
        using U = Lanes<std::uint32_t, L>;
        const Patches<N, L, patches_of_warp> patches(job.grid, image, task);
        const U patch = lane_ids<L>() / U(N), row = lane_ids<L>() & U(N - 1u);
        const auto present = patches.present(patch);
        const I down = row.template as<std::int64_t>();
        const auto place = [&](const Image& of) {
            return patches.place(of, patch, U(0u)) + down * I(of.stride_h);
        };
        const F zero(0.0f);

        I at = place(job.pred), target_at = PIXEL == Pixel::none ? I(0) : place(job.target), to = place(job.gradient);
        wait_for_the_kernel_before(at, target_at, to);
        // On its way with the pixels: the exchanges would keep it behind them.
        const float grad_output = grad_output_of<float>(job, image);
        F luma[N], difference[CHANNELS * N];
        read<L>(job, at, target_at, luma, difference);
        const PatchRow<Operator, L> pixels(row, luma);
        const Analysis<Operator, L> analysis(job, pixels, F(grad_output * job.single.q_share));
        const F pixel_scale(grad_output * job.single.pixel_factor);
        F by_luma[N];
        pixels.adjoint(analysis.v, analysis.ratio, by_luma);
        if constexpr (CHANNELS > 1)
#pragma unroll
            for (int k = 0; k < N; ++k) by_luma[k] = by_luma[k] * analysis.factor;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            const F share = CHANNELS == 1 ? analysis.factor : F(Luma<float>::of(CHANNELS, c));
            F g[N];
#pragma unroll
            for (int k = 0; k < N; ++k) {
                if constexpr (PIXEL == Pixel::none)
                    g[k] = by_luma[k] * share;
                else
                    g[k] = fma(by_luma[k], share, pixel_gradient(difference[c * N + k], PIXEL, zero, pixel_scale));
            }
            write<L>(job, to + I(c * job.gradient.stride_c), g, present);
        }
    }

  private:
    // A row's luma, and pred less target.
    template <int L>
    static QKERNEL_INLINE void read(const Job& job, const Lanes<std::int64_t, L>& at,
                                    const Lanes<std::int64_t, L>& target_at, Lanes<float, L>* luma,
                                    Lanes<float, L>* difference) {
        using F = Lanes<float, L>;
        using I = Lanes<std::int64_t, L>;
        F y[CHANNELS * N], z[CHANNELS * N];
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            load_rows<1, Storage>(job.pred, 0, at + I(c * job.pred.stride_c), y + c * N);
            if constexpr (PIXEL != Pixel::none)
                load_rows<1, Storage>(job.target, 0, target_at + I(c * job.target.stride_c), z + c * N);
        }
#pragma unroll
        for (int k = 0; k < N; ++k) luma[k] = CHANNELS == 1 ? y[k] : F(0.0f);
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
            for (int k = 0; k < N; ++k) {
                if constexpr (CHANNELS > 1) luma[k] = fma(y[c * N + k], F(Luma<float>::of(CHANNELS, c)), luma[k]);
                if constexpr (PIXEL != Pixel::none) difference[c * N + k] = y[c * N + k] - z[c * N + k];
            }
    }

    template <int L>
    static QKERNEL_INLINE void write(const Job& job, const Lanes<std::int64_t, L>& at, const Lanes<float, L>* g,
                                     const Lanes<bool, L>& mask) {
        using I = Lanes<std::int64_t, L>;
        if (!job.gradient_is_aligned) {
#pragma unroll
            for (int k = 0; k < N; ++k) store_one(job.gradient, at + I(k * job.gradient.stride_w), g[k], mask);
            return;
        }
#pragma unroll
        for (int i = 0; i < L; ++i) {
            Storage* to = static_cast<Storage*>(job.gradient.data) + at.v[i];
            float own[N];
#pragma unroll
            for (int k = 0; k < N; ++k) own[k] = g[k].v[i];
            if constexpr (sizeof(Storage) == 4) {
#pragma unroll
                for (int k = 0; k < N; k += 4)
                    store_chunk(to + k,
                                {to_bits(own[k]), to_bits(own[k + 1]), to_bits(own[k + 2]), to_bits(own[k + 3])},
                                mask.v[i]);
            } else {
                store_chunk(to, pack(own, job.gradient.dtype), mask.v[i]);
            }
        }
    }
};

}  // namespace qkernel::cuda

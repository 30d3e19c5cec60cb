// The kernels for patches of 8 x 8 and 4 x 4 that lie anyhow, through shared memory.
#pragma once

#include "registers.h"

namespace qkernel::cuda {

// Any strides, dtypes, alignment and number of channels: a warp reads and writes pixels side by side by lanes side by
// side, and turns them round in shared memory.
template <class Operator, int N_, bool BACKWARD>
struct Staged {
    using Scalar = float;
    static constexpr int N = N_;
    static constexpr bool backward = BACKWARD, sees_outside = true;
    static constexpr int threads = 128, blocks = BACKWARD ? 3 : 4;
    static constexpr int scratch = 32 * N * N * 4;
    // Times 32 patches: a warp's sums then stand for 2048 pixels whatever N.
    static constexpr int groups = 64 / (N * N);

    template <int L>
    static QKERNEL_INLINE void warp(const Job& job, std::int64_t image, std::int64_t task, float* memory) {
        Lanes<float, L> q(0.0f), pixels(0.0f);
#pragma unroll 1
        for (int i = 0; i < groups; ++i) group<L>(job, image, task * groups + i, memory, q, pixels);
        if (BACKWARD) return;
        put_sum(job.q_sums, job.tasks.inside, image, task, q);
        if (job.pixel != Pixel::none)
            put_sum(job.pixel_sums, std::int64_t(job.tasks.inside) + job.tasks.outside, image, task, pixels);
    }

  private:
    template <int L>
    static QKERNEL_INLINE void group(const Job& job, std::int64_t image, std::int64_t number, float* memory,
                                     Lanes<float, L>& q_sum, Lanes<float, L>& pixel_sum) {
        using F = Lanes<float, L>;
        using I = Lanes<std::int64_t, L>;
        using U = Lanes<std::uint32_t, L>;
        const Patches<N, L> patches(job, image, number);
        if (patches.empty()) return;
        const Tile<N, L> tile{memory};
        const F zero(0.0f), eps2(job.single.eps2);
        const bool with_pixels = job.pixel != Pixel::none;
        // Pixel number lane + 32 j of the patches' rows, laid side by side.
        const auto pixel = [](int j) { return lane_ids<L>() + U(32u * j); };
        const auto addresses = [&](const Image& of, I* at) {
#pragma unroll
            for (int j = 0; j < N; ++j) at[j] = patches.address(of, pixel(j) / U(N), pixel(j) & U(N - 1u));
        };
        // Bytes from one channel's row to the next channel's, and from the last one's to the next row of the first.
        const auto channels = static_cast<int>(job.channels);
        const auto to_channel = [](const Image& of) { return of.stride_c * size_of(of.dtype); };
        const auto to_row = [&](const Image& of) {
            return of.stride_h * size_of(of.dtype) - (channels - 1) * to_channel(of);
        };
        const std::int64_t pred_channel = to_channel(job.pred), pred_row = to_row(job.pred);
        const std::int64_t target_channel = to_channel(job.target), target_row = to_row(job.target);

        warp_barrier();
        {
            I at[N], target_at[N];
            addresses(job.pred, at);
            if (!BACKWARD && with_pixels) addresses(job.target, target_at);
#pragma unroll 1
            for (int r = 0; r < N; ++r) {
                F luma[N], x[N], y[N];
#pragma unroll
                for (int j = 0; j < N; ++j) luma[j] = zero;
                for (int c = 0; c < channels; ++c) {
                    load_some<N>(job.pred.dtype, at, c + 1 < channels ? pred_channel : pred_row, x);
                    const F share(Luma<float>::of(channels, c));
#pragma unroll
                    for (int j = 0; j < N; ++j) luma[j] = fma(x[j], share, luma[j]);
                    if (BACKWARD || !with_pixels) continue;
                    load_some<N>(job.target.dtype, target_at, c + 1 < channels ? target_channel : target_row, y);
                    F row = zero;
                    decided(job.pixel, [&](auto tag) {
#pragma unroll
                        for (int j = 0; j < N; ++j) {
                            const F term = pixel_term(x[j] - y[j], tag.value, eps2);
                            row = row + select(patches.present(pixel(j) / U(N)), term, zero);
                        }
                    });
                    pixel_sum = pixel_sum + row;
                }
#pragma unroll
                for (int j = 0; j < N; ++j) tile.put(r, pixel(j), luma[j]);
            }
        }
        warp_barrier();
        F x[N * N];
#pragma unroll
        for (int r = 0; r < N; ++r) tile.get_patch_row(r, Tile<N, L>::mine(), x + r * N);

        if constexpr (!BACKWARD) {
            const F value = Analysis<Operator, N, L>::value(job, x);
            q_sum = q_sum + select(patches.present(lane_ids<L>()), value, zero);
        } else {
            const Analysis<Operator, N, L> analysis(job, x, q_scale_of<F, float>(job, patches.grid, image));
            warp_barrier();
            U mine = Tile<N, L>::mine();
            forget(mine);
            adjoint_rows<Operator, N>(x, analysis.v, analysis.ratio, [&](int r, F* g) {
#pragma unroll
                for (int k = 0; k < N; ++k) g[k] = g[k] * analysis.factor;
                tile.put_patch_row(r, mine, g);
            });
            warp_barrier();
            const F pixel_scale(grad_output_of<float>(job, image) * job.single.pixel_factor);
#pragma unroll 1
            for (int j = 0; j < N; ++j) {
                const U p = pixel(j) / U(N), column = pixel(j) & U(N - 1u);
                const auto present = patches.present(p);
                const I to = patches.place(job.gradient, p, column);
                const I at = with_pixels ? patches.place(job.pred, p, column) : to;
                const I target_at = with_pixels ? patches.place(job.target, p, column) : to;
                for (std::int64_t c = 0; c < job.channels; ++c) {
                    const F share(Luma<float>::of(job.channels, c));
                    F g[N];
#pragma unroll
                    for (int r = 0; r < N; ++r) g[r] = tile.get(r, pixel(j)) * share;
                    if (with_pixels) {
                        F d[N], y[N];
                        load_column<N>(job.pred, at + I(c * job.pred.stride_c), d);
                        load_column<N>(job.target, target_at + I(c * job.target.stride_c), y);
                        decided(job.pixel, [&](auto tag) {
#pragma unroll
                            for (int r = 0; r < N; ++r)
                                g[r] = g[r] + pixel_gradient(d[r] - y[r], tag.value, eps2, pixel_scale);
                        });
                    }
                    store_column<N>(job.gradient, to + I(c * job.gradient.stride_c), g, present);
                }
            }
        }
    }
};

}  // namespace qkernel::cuda

// The kernels for patches of 8 x 8 and 4 x 4 that lie anyhow, through shared memory.
#pragma once

#include <type_traits>

#include "registers.h"

namespace qkernel::cuda {

// Any strides, dtypes, alignment and number of channels: a warp reads and writes pixels side by side by lanes side by
// side, and turns them round in shared memory.
template <class Operator, int N_, bool BACKWARD>
struct Staged {
    using Scalar = float;
    static constexpr int N = N_;
    static constexpr bool backward = BACKWARD, sees_outside = true, comes_early = false;
    static constexpr int threads = 128, blocks = BACKWARD ? 3 : 4;
    // Of 8 x 8 a block's are 32 KiB: where a multiprocessor has 100 (8.6, 8.9, 12.0) three blocks fit, of 7.5's 64 two.
    static constexpr int scratch = 32 * N * N * 4;
    // Times 32 patches: a warp's sums then stand for 2048 pixels whatever N.
    static constexpr int groups = 64 / (N * N);

    template <int L>
    static QKERNEL_INLINE void warp(const Job& job, std::int64_t image, std::int64_t task, float* memory) {
        Lanes<float, L> q(0.0f), pixels(0.0f);
#pragma unroll 1
        for (int i = 0; i < groups; ++i) group<L>(job, image, task * groups + i, memory, q, pixels);
        if (BACKWARD) return;
        put_sum(job.q_sums, job.tasks.q_stride(), image, task, q);
        if (job.pixel != Pixel::none)
            put_sum(job.pixel_sums, job.tasks.pixel_stride(), image, task, pixels);
    }

  private:
    template <int L>
    static QKERNEL_INLINE void group(const Job& job, std::int64_t image, std::int64_t number, float* memory,
                                     Lanes<float, L>& q_sum, Lanes<float, L>& pixel_sum) {
        using F = Lanes<float, L>;
        using I = Lanes<std::int64_t, L>;
        using U = Lanes<std::uint32_t, L>;
        const Patches<N, L> patches(grid_of(job), image, number);
        if (patches.empty()) return;
        const Tile<N, L> tile{memory};
        const F zero(0.0f), eps2(job.single.eps2);
        const bool with_pixels = job.pixel != Pixel::none;
        // Pixel number lane + 32 j of the patches' rows, laid side by side.
        const auto pixel = [](int j) { return lane_ids<L>() + U(32u * j); };
        const auto channels = static_cast<int>(job.channels);
        // Backward the signs of pred - target are kept from where pred is read for Q: number r * N + j of pixel(j) in
        // row r. For terms other than |pred - target|, and with more channels, both are read once more.
        [[maybe_unused]] const bool keeps_signs = job.pixel == Pixel::l1 && channels == 1;
        constexpr int words = (N * N + 31) / 32;
        [[maybe_unused]] Signs<L> signs[words];
        const auto bytes = [](const Image& of, std::int64_t elements) { return elements * size_of(of.dtype); };
        const auto addresses = [&](const Image& of, I* at) {
#pragma unroll
            for (int j = 0; j < N; ++j) at[j] = patches.address(of, pixel(j) / U(N), pixel(j) & U(N - 1u));
        };
        warp_barrier();
        const auto read = [&](auto tag) {
            constexpr bool with_target = decltype(tag)::value;
            // Rows on their way at once: a multiprocessor has room for few warps, and each of them must keep kilobytes
            // in flight.
            constexpr int rows = with_target && !BACKWARD ? 2 : 4;
            const std::int64_t row = bytes(job.pred, job.pred.stride_h);
            const std::int64_t target_row = bytes(job.target, job.target.stride_h);
            I at[N], target_at[N];
            addresses(job.pred, at);
            if constexpr (with_target) addresses(job.target, target_at);
#pragma unroll 1
            for (int first = 0; first < N; first += rows) {
                F luma[rows * N], x[rows * N], y[rows * N];
#pragma unroll
                for (int k = 0; k < rows * N; ++k) luma[k] = zero;
#pragma unroll 1
                for (int c = 0; c < channels; ++c) {
                    load_some<rows, N>(job.pred.dtype, at, bytes(job.pred, c * job.pred.stride_c), row, x);
                    if constexpr (with_target)
                        load_some<rows, N>(job.target.dtype, target_at, bytes(job.target, c * job.target.stride_c),
                                           target_row, y);
                    const F share(Luma<float>::of(channels, c));
#pragma unroll
                    for (int k = 0; k < rows * N; ++k) luma[k] = fma(x[k], share, luma[k]);
                    if constexpr (with_target && BACKWARD) {
                        // One turn's fill a word.
                        static_assert(rows * N * words == N * N, "");
#pragma unroll
                        for (int k = 1; k < words; ++k) signs[k - 1] = signs[k];
                        signs[words - 1] = Signs<L>();
#pragma unroll
                        for (int k = 0; k < rows * N; ++k) signs[words - 1].put(k, x[k] - y[k]);
                    } else if constexpr (with_target) {
                        decided(job.pixel, [&](auto pixel_tag) {
#pragma unroll
                            for (int r = 0; r < rows; ++r) {
                                F sum = zero;
#pragma unroll
                                for (int j = 0; j < N; ++j) {
                                    const F term = pixel_term(x[r * N + j] - y[r * N + j], pixel_tag.value, eps2);
                                    sum = sum + select(patches.present(pixel(j) / U(N)), term, zero);
                                }
                                pixel_sum = pixel_sum + sum;
                            }
                        });
                    }
                }
#pragma unroll
                for (int r = 0; r < rows; ++r)
#pragma unroll
                    for (int j = 0; j < N; ++j) tile.put(first + r, pixel(j), luma[r * N + j]);
#pragma unroll
                for (int j = 0; j < N; ++j) {
                    at[j] = at[j] + I(rows * row);
                    if constexpr (with_target) target_at[j] = target_at[j] + I(rows * target_row);
                }
            }
        };
        if (BACKWARD ? keeps_signs : with_pixels)
            read(std::true_type{});
        else
            read(std::false_type{});
        warp_barrier();
        F x[N * N];
#pragma unroll
        for (int r = 0; r < N; ++r) tile.get_patch_row(r, Tile<N, L>::mine(), x + r * N);

        if constexpr (!BACKWARD) {
            const F value = Analysis<Operator, L>::value(job, WholePatch<Operator, N, L>{x});
            q_sum = q_sum + select(patches.present(lane_ids<L>()), value, zero);
        } else {
            const Analysis<Operator, L> analysis(job, WholePatch<Operator, N, L>{x},
                                                 F(q_scale_of<float>(job, patches.grid, image)));
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
            const bool reads_again = with_pixels && !keeps_signs;
            // Columns on their way at once.
            constexpr int columns = 2;
#pragma unroll 1
            for (int j = 0; j < N; j += columns) {
                Lanes<bool, L> present[columns];
                I to[columns];
                I at[columns], target_at[columns];  // in bytes
                F by_luma[columns * N];
#pragma unroll
                for (int k = 0; k < columns; ++k) {
                    const U p = pixel(j + k) / U(N), column = pixel(j + k) & U(N - 1u);
                    present[k] = patches.present(p);
                    to[k] = patches.place(job.gradient, p, column);
                    at[k] = reads_again ? patches.address(job.pred, p, column) : to[k];
                    target_at[k] = reads_again ? patches.address(job.target, p, column) : to[k];
#pragma unroll
                    for (int r = 0; r < N; ++r) by_luma[k * N + r] = tile.get(r, pixel(j + k));
                }
#pragma unroll 1
                for (int c = 0; c < channels; ++c) {
                    const F share(Luma<float>::of(channels, c));
                    F g[columns * N], d[columns * N], y[columns * N];
                    if (reads_again) {
#pragma unroll
                        for (int k = 0; k < columns; ++k)
                            load_some<N, 1>(job.pred.dtype, at + k, bytes(job.pred, c * job.pred.stride_c),
                                            bytes(job.pred, job.pred.stride_h), d + k * N);
#pragma unroll
                        for (int k = 0; k < columns; ++k)
                            load_some<N, 1>(job.target.dtype, target_at + k, bytes(job.target, c * job.target.stride_c),
                                            bytes(job.target, job.target.stride_h), y + k * N);
                    }
#pragma unroll
                    for (int i = 0; i < columns * N; ++i) g[i] = by_luma[i] * share;
                    if (reads_again) {
                        decided(job.pixel, [&](auto tag) {
#pragma unroll
                            for (int i = 0; i < columns * N; ++i)
                                g[i] = g[i] + pixel_gradient(d[i] - y[i], tag.value, eps2, pixel_scale);
                        });
                    } else if (keeps_signs) {
#pragma unroll
                        for (int r = 0; r < N; ++r) {
                            const Signs<L> row = signs[r * N / 32].from(j);
#pragma unroll
                            for (int k = 0; k < columns; ++k)
                                g[k * N + r] = g[k * N + r] + row.gradient(r * N % 32 + k, pixel_scale);
                        }
                    }
#pragma unroll
                    for (int k = 0; k < columns; ++k)
                        store_column<N>(job.gradient, to[k] + I(c * job.gradient.stride_c), g + k * N, present[k]);
                }
            }
        }
    }
};

}  // namespace qkernel::cuda

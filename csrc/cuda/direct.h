// The kernels for patches of 8 x 8 that 16 bytes at once can be moved of, straight from memory into registers.
#pragma once

#include "registers.h"

namespace qkernel::cuda {

// One channel or RGB, pixels side by side, rows that begin at multiples of 16 bytes: straight from memory into
// registers.
// PIXEL: none or l1, the paper's; the others go through `Staged`.
template <class Operator, class Storage, bool BACKWARD, Pixel PIXEL, int CHANNELS>
struct Direct {
    using Scalar = float;
    static constexpr int N = 8;
    static constexpr bool backward = BACKWARD, sees_outside = BACKWARD || PIXEL != Pixel::none,
                          comes_early = !BACKWARD;
    static constexpr bool packs = sizeof(Storage) == 2 && CHANNELS == 1;
    // Threads of a block, and blocks of a multiprocessor that the registers must suffice for: 16 warps with 128, 12
    // with 168 or 8 with 255 of them. In half precision a warp's loads are half as many bytes: it takes more warps.
    static constexpr int threads = PIXEL != Pixel::none && (BACKWARD || CHANNELS > 1) ? 64 : 128;
    static constexpr int blocks =
        threads == 64 ? (packs ? 6 : 4) : CHANNELS == 1 && (packs || !BACKWARD) ? 4 : 3;
    // Backward in half precision the target's rows are under way with pred's, for the four registers each takes; in
    // float32 they are loaded where they are needed, which bytes enough hide.
    static constexpr int ahead = BACKWARD && PIXEL != Pixel::none && packs ? N : 0;
    // Backward pred of several channels is not kept, but the signs of pred - target are.
    static constexpr bool keeps_signs = BACKWARD && PIXEL != Pixel::none && CHANNELS > 1;
    static constexpr bool stores_through_tile = BACKWARD && sizeof(Storage) == 4;
    static constexpr int scratch = stores_through_tile ? 2 * 32 * N * 4 : 0;

    template <int L>
    static QKERNEL_INLINE void warp(const Job& job, std::int64_t image, std::int64_t task, float* memory) {
        using F = Lanes<float, L>;
        using I = Lanes<std::int64_t, L>;
        using U = Lanes<std::uint32_t, L>;
        // Without an offset (path_of): every warp has patches.
        const Patches<N, L> patches(job.grid, image, task);
        const F zero(0.0f);
        const U lane = lane_ids<L>();
        const auto present = patches.present(lane);

        F x[N * N], sum = zero;  // luma, and forward the pixel term
        I at = patches.place(job.pred, lane, U(0u));
        I target_at = PIXEL == Pixel::none ? at : patches.place(job.target, lane, U(0u));
        if constexpr (comes_early) wait_for_the_kernel_before(at, target_at);
        // Row r of channel c: pred, of which one channel stays in registers, less target.
        const auto difference = [&](int c, int r, const F* pred, F* d) {
            load_rows<1, Storage>(job.target, r, target_at + I(c * job.target.stride_c), d);
#pragma unroll
            for (int k = 0; k < N; ++k) d[k] = pred[k] - d[k];
        };
        const auto add_term = [&](int c, int r, const F* pred) {
            F d[N], row = zero;
            difference(c, r, pred, d);
#pragma unroll
            for (int k = 0; k < N; ++k) row = row + abs(d[k]);
            sum = sum + row;
        };
        [[maybe_unused]] PackedRow<Storage, L> coming[ahead + 1];
        [[maybe_unused]] Signs<L> signs[keeps_signs ? CHANNELS * 2 : 1];
        if constexpr (CHANNELS == 1) {
            load_rows<N, Storage>(job.pred, 0, at, x);
#pragma unroll
            for (int r = 0; r < ahead; ++r) coming[r].load(job.target, r, target_at);
            if constexpr (!BACKWARD && PIXEL != Pixel::none)
#pragma unroll
                for (int r = 0; r < N; ++r) add_term(0, r, x + r * N);
        } else {
            // Rows on the outside, so that few registers hold luma while many rows are under way.
            constexpr bool full = BACKWARD && PIXEL != Pixel::none && sizeof(Storage) == 4;
            constexpr int some = full ? 1 : 8 / sizeof(Storage);
#pragma unroll
            for (int r = 0; r < N; r += some) {
                F* const luma = x + r * N;
#pragma unroll
                for (int i = 0; i < some * N; ++i) luma[i] = zero;
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c) {
                    const F share(Luma<float>::of(CHANNELS, c));
                    F y[some * N];
                    load_rows<some, Storage>(job.pred, r, at + I(c * job.pred.stride_c), y);
#pragma unroll
                    for (int i = 0; i < some * N; ++i) luma[i] = fma(y[i], share, luma[i]);
                    if constexpr (!BACKWARD && PIXEL != Pixel::none)
#pragma unroll
                        for (int i = 0; i < some; ++i) add_term(c, r + i, y + i * N);
                    if constexpr (keeps_signs)
#pragma unroll
                        for (int i = 0; i < some; ++i) {
                            F d[N];
                            difference(c, r + i, y + i * N, d);
#pragma unroll
                            for (int k = 0; k < N; ++k) signs[c * 2 + (r + i) / 4].put((r + i) % 4 * N + k, d[k]);
                        }
                }
            }
        }

        if constexpr (!BACKWARD) {
            if constexpr (PIXEL != Pixel::none)
                put_sum(job.pixel_sums, job.tasks.pixel_stride(), image, task,
                        select(present, sum, zero));
            const F value = Analysis<Operator, L>::value(job, WholePatch<Operator, N, L>{x});
            put_sum(job.q_sums, job.tasks.q_stride(), image, task, select(present, value, zero));
        } else {
            const Analysis<Operator, L> analysis(job, WholePatch<Operator, N, L>{x},
                                                 F(grad_output_of<float>(job, image) * job.single.q_share));
            const F pixel_scale(grad_output_of<float>(job, image) * job.single.pixel_factor);
            const Tile<N, L> tile{memory};
            // Full sectors: through the tile, lanes side by side store 16 bytes side by side. In bytes; kept in
            // registers, for the compiler would otherwise work them out anew for every row.
            constexpr int pieces = stores_through_tile ? 2 : 1;
            I to[pieces];
            Lanes<bool, L> there[pieces];
            const std::int64_t channel_bytes = job.gradient.stride_c * std::int64_t(sizeof(Storage));
            U mine = Tile<N, L>::mine(), from = Tile<N, L>::swizzled(lane * U(4u));
            forget(mine);
            forget(from);
#pragma unroll
            for (int i = 0; i < pieces; ++i) {
                const U pixel = stores_through_tile ? lane * U(4u) + U(128u * i) : lane * U(8u);
                const I place = patches.place(job.gradient, pixel / U(8u), pixel & U(7u));
                to[i] = place * I(sizeof(Storage)) + I(reinterpret_cast<std::int64_t>(job.gradient.data));
                there[i] = patches.present(pixel / U(8u));
                forget(to[i]);
            }
            adjoint_rows<Operator, N>(x, analysis.v, analysis.ratio, [&](int r, F* by_luma) {
                // In the order of `Staged`: the same bits.
                if constexpr (CHANNELS > 1)
#pragma unroll
                    for (int k = 0; k < N; ++k) by_luma[k] = by_luma[k] * analysis.factor;
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c) {
                    F g[N];
                    const F share = CHANNELS == 1 ? analysis.factor : F(Luma<float>::of(CHANNELS, c));
                    if constexpr (PIXEL == Pixel::none) {
#pragma unroll
                        for (int k = 0; k < N; ++k) g[k] = by_luma[k] * share;
                    } else if constexpr (keeps_signs) {
#pragma unroll
                        for (int k = 0; k < N; ++k)
                            g[k] = fma(by_luma[k], share, signs[c * 2 + r / 4].gradient(r % 4 * N + k, pixel_scale));
                    } else {
                        F d[N];
                        if constexpr (ahead > 0) {
                            stored<Storage>(job.target.dtype, [&](auto tag) { coming[r].unpack_as(tag, d); });
#pragma unroll
                            for (int k = 0; k < N; ++k) d[k] = x[r * N + k] - d[k];
                        } else {
                            difference(c, r, x + r * N, d);
                        }
#pragma unroll
                        for (int k = 0; k < N; ++k)
                            g[k] = fma(by_luma[k], share, pixel_gradient(d[k], PIXEL, zero, pixel_scale));
                    }
                    const int turn = (r * CHANNELS + c) % 2;
                    if constexpr (stores_through_tile) {
                        // Two rows in turn: who writes the one has seen all lanes past the other's barrier.
                        tile.put_patch_row(turn, mine, g);
                        warp_barrier();
                    }
#pragma unroll
                    for (int i = 0; i < pieces; ++i) {
                        const I place = to[i] + I(c * channel_bytes);
#pragma unroll
                        for (int l = 0; l < L; ++l) {
                            Chunk chunk;
                            if constexpr (stores_through_tile) {
                                // 32 chunks on, the swizzle is the same.
                                chunk = tile.get_chunk(turn, from.v[l] + 128u * i);
                            } else {
                                float own[N];
#pragma unroll
                                for (int k = 0; k < N; ++k) own[k] = g[k].v[l];
                                chunk = pack(own, job.gradient.dtype);
                            }
                            store_chunk(reinterpret_cast<void*>(place.v[l]), chunk, there[i].v[l]);
                        }
                    }
                }
#pragma unroll
                for (int i = 0; i < pieces; ++i)
                    to[i] = to[i] + I(job.gradient.stride_h * std::int64_t(sizeof(Storage)));
            });
        }
    }
};

}  // namespace qkernel::cuda

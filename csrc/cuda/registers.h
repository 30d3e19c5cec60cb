// The kernels for patches of 8 x 8 and 4 x 4: a lane holds a whole patch in its registers.
//
// So no pixel is exchanged between lanes, and what is computed once for a patch (divisions, roots) is computed by one
// lane. Differences are taken again from the pixels for every use, which costs less than keeping them.
#pragma once

#include "gradient.h"
#include "outside.h"

namespace qkernel::cuda {

// The patches of a warp, one to a lane; lanes left over repeat the last one and are not counted.
template <int N, int L>
struct Patches {
    using I = Lanes<std::int64_t, L>;
    using U = Lanes<std::uint32_t, L>;

    Grid grid;
    std::uint32_t first, last;
    std::int64_t image;

    QKERNEL_INLINE Patches(const Job& job, std::int64_t image_, std::int64_t task)
        : grid(grid_of(job)), first(static_cast<std::uint32_t>(task) * 32u), last(grid.count() - 1u), image(image_) {}

    // More warps are started than an offset grid may have patches for.
    QKERNEL_INLINE bool empty() const { return first >= grid.count(); }

    // Whether patch number first + i is there.
    QKERNEL_INLINE Lanes<bool, L> present(const U& i) const { return i <= U(last - first); }

    // Pixel (0, column) of patch number first + i, of channel 0: its place in elements.
    QKERNEL_INLINE I place(const Image& of, const U& i, const U& column) const {
        const U p = select(present(i), i + U(first), U(last));
        const U row = divide_by(grid.columns, p), x = p - row * U(grid.columns.value);
        const I top = (row * U(N) + U(grid.top)).template as<std::int64_t>();
        const I left = (x * U(N) + U(grid.left) + column).template as<std::int64_t>();
        return top * I(of.stride_h) + left * I(of.stride_w) + I(image * of.stride_n);
    }

    // And its address.
    QKERNEL_INLINE I address(const Image& of, const U& i, const U& column) const {
        return place(of, i, column) * I(size_of(of.dtype)) + I(reinterpret_cast<std::int64_t>(of.data));
    }
};

// What is known of the patch once its pixels are in registers: forward its value, backward what its gradient needs.
template <class Operator, int N, int L>
struct Analysis {
    using F = Lanes<float, L>;

    static QKERNEL_INLINE Measure<float> measure_of(const Job& job) {
        Measure<float> measure = job.single.measure;
        // Of the three the operator leaves two, or one: the compiler need not keep the rest.
        if (!Operator::of_singular_values) measure.formula = Formula::mmsp2024;
        else if (measure.formula != Formula::zhu2010) measure.formula = Formula::pythonq;
        return measure;
    }

    static QKERNEL_INLINE F value(const Job& job, F* x) {
        const Measure<float> measure = measure_of(job);
        const auto spectrum = analyse(moments_of<Operator, N>(x), measure);
        F l2(0.0f), unused;
        if (Operator::of_singular_values) {
#pragma unroll
            for (int i = 0; i < N * N; ++i) forget(x[i]);
            sums_across<Operator, N, false>(x, principal_direction(spectrum), l2, unused);
            l2 = l2 * F(measure.inverse_range * measure.inverse_range);
        }
        return patch_value(spectrum, l2, measure);
    }

    Direction<F> v;
    F ratio, factor;  // see adjoint_rows; factor is grad_output's and along1

    QKERNEL_INLINE Analysis(const Job& job, F* x, F q_scale) {
        const Measure<float> measure = measure_of(job);
        const F scale(measure.inverse_range * measure.inverse_range), zero(0.0f), one(1.0f);
        const auto spectrum = analyse(moments_of<Operator, N>(x), measure);
        v = principal_direction(spectrum);
        F l2(0.0f), mixed;
#pragma unroll
        for (int i = 0; i < N * N; ++i) forget(x[i]);
        if (Operator::of_singular_values) {
            sums_across<Operator, N, true>(x, v, l2, mixed);
            l2 = rotate_once_more(spectrum, l2 * scale, mixed * scale, v);
#pragma unroll
            for (int i = 0; i < N * N; ++i) forget(x[i]);
        }
        const auto adjoint = patch_adjoint(spectrum, l2, measure);
        const auto none = adjoint.along1 == zero;
        ratio = select(none, zero, (adjoint.along2 - adjoint.along1) / select(none, one, adjoint.along1));
        factor = adjoint.along1 * q_scale;
    }
};

template <class F, class S>
QKERNEL_INLINE F q_scale_of(const Job& job, const Grid& grid, std::int64_t image) {
    const S scale = grad_output_of<S>(job, image) * job.numbers<S>().q_factor;
    return F(scale) / F(static_cast<S>(grid.count()));
}

// Shared memory of a warp: pixels in the order of the image, side by side for its 32 patches, a row of N * 32 after the
// other. Groups of four are exchanged in pairs, so that no two of eight lanes meet in a bank, neither when each lane
// takes its own patch's nor when lanes side by side take pixels side by side.
template <int N, int L>
struct Tile {
    using F = Lanes<float, L>;
    using U = Lanes<std::uint32_t, L>;
    static constexpr int row = 32 * N;

    float* at;

    static QKERNEL_INLINE U swizzled(const U& pixel) {
        const U group = pixel / U(4u);
        return pixel + (((group / U(8u)) & U(1u)) * (U(4u) - (group & U(1u)) * U(8u)));
    }
    static QKERNEL_INLINE U mine() { return swizzled(lane_ids<L>() * U(N)); }

    // Pixels 0 .. N - 1 of each lane's patch, of which `first` says where the first is: mine().
    QKERNEL_INLINE void put_patch_row(int r, const U& first, const F* x) const {
#pragma unroll
        for (int i = 0; i < L; ++i)
#pragma unroll
            for (int k = 0; k < N; k += 4) {
                const Chunk chunk = {to_bits(x[k].v[i]), to_bits(x[k + 1].v[i]), to_bits(x[k + 2].v[i]),
                                     to_bits(x[k + 3].v[i])};
                share_chunk(at + r * row + (first.v[i] ^ static_cast<std::uint32_t>(k)), chunk);
            }
    }
    QKERNEL_INLINE Chunk get_chunk(int r, std::uint32_t from) const {
        return *reinterpret_cast<const Chunk*>(at + r * row + from);
    }
    QKERNEL_INLINE void get_patch_row(int r, const U& first, F* x) const {
#pragma unroll
        for (int i = 0; i < L; ++i)
#pragma unroll
            for (int k = 0; k < N; k += 4) {
                const Chunk chunk = get_chunk(r, first.v[i] ^ static_cast<std::uint32_t>(k));
#pragma unroll
                for (int j = 0; j < 4; ++j) x[k + j].v[i] = from_bits(chunk.w[j]);
            }
    }
    QKERNEL_INLINE void put(int r, const U& pixel, const F& x) const { scatter(at + r * row, swizzled(pixel), x); }
    QKERNEL_INLINE F get(int r, const U& pixel) const { return gather<float>(at + r * row, swizzled(pixel)); }
};

template <int L>
QKERNEL_INLINE void put_sum(void* sums, std::int64_t per_image, std::int64_t image, std::int64_t task,
                            const Lanes<float, L>& lanes) {
    store_once(static_cast<float*>(sums) + image * per_image + task, warp_sum(lanes));
}

// One channel or RGB, pixels side by side, rows that begin at multiples of 16 bytes: straight from memory into
// registers.
// PIXEL: none or l1, the paper's; the others go through `Staged`.
template <class Operator, class Storage, bool BACKWARD, Pixel PIXEL, int CHANNELS>
struct Direct {
    using Scalar = float;
    static constexpr int N = 8;
    static constexpr bool backward = BACKWARD, sees_outside = BACKWARD || PIXEL != Pixel::none;
    // Threads of a block, and blocks of a multiprocessor that the registers must suffice for: 16 warps with 128, 12
    // with 168 or 8 with 255 of them.
    static constexpr int threads = PIXEL != Pixel::none && (BACKWARD || CHANNELS > 1) ? 64 : 128;
    static constexpr int blocks = threads == 128 && (BACKWARD || CHANNELS > 1) ? 3 : 4;
    static constexpr bool stores_through_tile = BACKWARD && sizeof(Storage) == 4;
    static constexpr int scratch = stores_through_tile ? 2 * 32 * N * 4 : 0;

    template <int L>
    static QKERNEL_INLINE void warp(const Job& job, std::int64_t image, std::int64_t task, float* memory) {
        using F = Lanes<float, L>;
        using I = Lanes<std::int64_t, L>;
        using U = Lanes<std::uint32_t, L>;
        const Patches<N, L> patches(job, image, task);
        const F zero(0.0f);
        if (patches.empty()) {
            if (!BACKWARD) put_sum(job.q_sums, job.tasks.inside, image, task, zero);
            if (!BACKWARD && PIXEL != Pixel::none)
                put_sum(job.pixel_sums, std::int64_t(job.tasks.inside) + job.tasks.outside, image, task, zero);
            return;
        }
        const U lane = lane_ids<L>();
        const auto present = patches.present(lane);

        F x[N * N], sum = zero;  // luma, and forward the pixel term
        const I at = patches.place(job.pred, lane, U(0u));
        const I target_at = PIXEL == Pixel::none ? at : patches.place(job.target, lane, U(0u));
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
        if constexpr (CHANNELS == 1) {
            load_rows<N, Storage>(job.pred, 0, at, x);
            if constexpr (!BACKWARD && PIXEL != Pixel::none)
#pragma unroll
                for (int r = 0; r < N; ++r) add_term(0, r, x + r * N);
        } else {
            // Rows on the outside, so that few registers hold luma while many rows are under way.
            constexpr int some = 8 / sizeof(Storage);
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
                }
            }
        }

        if constexpr (!BACKWARD) {
            if constexpr (PIXEL != Pixel::none)
                put_sum(job.pixel_sums, std::int64_t(job.tasks.inside) + job.tasks.outside, image, task,
                        select(present, sum, zero));
            const F value = Analysis<Operator, N, L>::value(job, x);
            put_sum(job.q_sums, job.tasks.inside, image, task, select(present, value, zero));
        } else {
            const Analysis<Operator, N, L> analysis(job, x, q_scale_of<F, float>(job, patches.grid, image));
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
                    } else {
                        F d[N];
                        if constexpr (CHANNELS == 1) {
                            difference(c, r, x + r * N, d);
                        } else {
                            F y[N];
                            load_rows<1, Storage>(job.pred, r, at + I(c * job.pred.stride_c), y);
                            difference(c, r, y, d);
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

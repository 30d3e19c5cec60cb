// What the kernels for patches of 8 x 8 and 4 x 4 share (direct.h, staged.h): a lane holds a whole patch in its
// registers. Those for few patches (spread.h) take the rest of it too.
//
// So no pixel is exchanged between lanes, and what is computed once for a patch (divisions, roots) is computed by one
// lane. Differences are taken again from the pixels for every use, which costs less than keeping them.
#pragma once

#include "gradient.h"
#include "pixels.h"

namespace qkernel::cuda {

// The patches of a warp, one to a lane or COUNT of them; those left over repeat the last one and are not counted.
template <int N, int L, std::uint32_t COUNT = 32>
struct Patches {
    using I = Lanes<std::int64_t, L>;
    using U = Lanes<std::uint32_t, L>;

    Grid grid;
    std::uint32_t first, last;
    std::int64_t image;

    QKERNEL_INLINE Patches(const Grid& grid_, std::int64_t image_, std::int64_t task)
        : grid(grid_), first(static_cast<std::uint32_t>(task) * COUNT), last(grid.count() - 1u), image(image_) {}

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

// A whole patch in the registers of a lane.
template <class Operator, int N, int L>
struct WholePatch {
    using F = Lanes<float, L>;

    F* x;

    QKERNEL_INLINE Moments<F> moments() const { return moments_of<Operator, N>(x); }
    template <bool MIXED>
    QKERNEL_INLINE Across<F> across(Direction<F> v) const {
        return sums_across<Operator, N, MIXED>(x, v);
    }
    // Differences are to be taken again from the pixels.
    QKERNEL_INLINE void forget_differences() const {
#pragma unroll
        for (int i = 0; i < N * N; ++i) forget(x[i]);
    }
};

// What is known of the patch once its pixels are in registers: forward its value, backward what its gradient needs.
// PATCH has its sums: `WholePatch`, or spread.h's `PatchRow`.
template <class Operator, int L>
struct Analysis {
    using F = Lanes<float, L>;

    static QKERNEL_INLINE Measure<float> measure_of(const Job& job) {
        Measure<float> measure = job.single.measure;
        // Of the three the operator leaves two, or one: the compiler need not keep the rest.
        if (!Operator::of_singular_values) measure.formula = Formula::mmsp2024;
        else if (measure.formula != Formula::zhu2010) measure.formula = Formula::pythonq;
        return measure;
    }

    // The differences that follow are not needed where no patch of the warp counts. The branch also keeps the compiler
    // from taking them while it waits for the roots before, for which half precision has not the registers.
    template <class Patch>
    static QKERNEL_INLINE F value(const Job& job, const Patch& patch) {
        const Measure<float> measure = measure_of(job);
        const auto spectrum = analyse(patch.moments(), measure);
        F l2(0.0f);
        if (Operator::of_singular_values && any(spectrum.counted)) {
            const Direction<F> v = principal_direction(spectrum);
            patch.forget_differences();
            l2 = patch.template across<false>(v).squares * F(measure.inverse_range * measure.inverse_range);
        }
        return patch_value(spectrum, l2, measure);
    }

    Direction<F> v;
    F ratio, factor;  // of Adjoint; factor is grad_output's and along

    template <class Patch>
    QKERNEL_INLINE Analysis(const Job& job, const Patch& patch, F q_scale) {
        const Measure<float> measure = measure_of(job);
        const auto spectrum = analyse(patch.moments(), measure);
        v = principal_direction(spectrum);
        F l2(0.0f);
        patch.forget_differences();
        if (Operator::of_singular_values && any(spectrum.counted)) {
            const Across<F> sums = patch.template across<true>(v);
            l2 = rotate_once_more(spectrum, sums.squares, sums.mixed, v);
            patch.forget_differences();
        }
        const auto adjoint = patch_adjoint(spectrum, l2, measure);
        ratio = adjoint.ratio;
        factor = adjoint.along * q_scale;
    }
};

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

}  // namespace qkernel::cuda

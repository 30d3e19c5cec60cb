// The kernel for patches of any size in any dtype: a warp for a patch, whose luma lies in shared memory.
//
// Slower by far than registers.h: pixels are taken in turns of 32, and for the adjoint every pixel computes what its
// neighbours hand to it, so that nothing but the luma is kept.
#pragma once

#include "outside.h"

namespace qkernel::cuda {

template <class S, int L>
struct SharedPatch {
    using F = Lanes<S, L>;
    using U = Lanes<std::uint32_t, L>;

    S* x;  // n x n
    std::uint32_t n;
    bool sobel;

    QKERNEL_INLINE F at(const U& r, const U& k) const { return gather<S>(x, r * U(n) + k); }

    // k - 1 and k + 1, staying inside.
    QKERNEL_INLINE U before(const U& k) const { return select(k == U(0u), k, k - U(1u)); }
    QKERNEL_INLINE U after(const U& k) const { return select(k == U(n - 1u), k, k + U(1u)); }
    // The same, mirrored without repeating the edge.
    QKERNEL_INLINE U mirrored_before(const U& k) const { return select(k == U(0u), U(1u), k - U(1u)); }
    QKERNEL_INLINE U mirrored_after(const U& k) const { return select(k == U(n - 1u), k - U(1u), k + U(1u)); }
    QKERNEL_INLINE Lanes<bool, L> border(const U& k) const { return (k == U(0u)) | (k == U(n - 1u)); }

    // In units of 1/2 (central) or 1/8 (Sobel).
    QKERNEL_INLINE void gradient(const U& r, const U& k, F& gx, F& gy) const {
        const F zero(S(0));
        if (!sobel) {
            const F dx = at(r, after(k)) - at(r, before(k)), dy = at(after(r), k) - at(before(r), k);
            gx = select(border(k), dx + dx, dx);
            gy = select(border(r), dy + dy, dy);
            return;
        }
        const auto horizontal = [&](const U& row) { return at(row, after(k)) - at(row, before(k)); };
        const auto vertical = [&](const U& column) { return at(after(r), column) - at(before(r), column); };
        const F two(S(2));
        const F dx = fma(two, horizontal(r), horizontal(mirrored_before(r)) + horizontal(mirrored_after(r)));
        const F dy = fma(two, vertical(k), vertical(mirrored_before(k)) + vertical(mirrored_after(k)));
        gx = select(border(k), zero, dx);
        gy = select(border(r), zero, dy);
    }
};

template <class S_, bool BACKWARD>
struct Loop {
    using Scalar = S_;
    static constexpr bool backward = BACKWARD, sees_outside = true, comes_early = false;
    static constexpr int threads = 128, blocks = 1;
    static constexpr int scratch = -1;  // n * n values: known when it is launched

    template <int L>
    static QKERNEL_INLINE void warp(const Job& job, std::int64_t image, std::int64_t task, Scalar* memory) {
        const Grid grid = grid_of(job);
        Lanes<Scalar, L> q(Scalar(0)), pixels(Scalar(0));
        const std::uint32_t first = static_cast<std::uint32_t>(task) * job.tasks.patches;
        for (std::uint32_t i = 0; i < job.tasks.patches && first + i < grid.count(); ++i)
            patch<L>(job, grid, image, first + i, memory, q, pixels);
        if (BACKWARD) return;
        store_once(static_cast<Scalar*>(job.q_sums) + image * job.tasks.q_stride() + task, q);
        if (job.pixel == Pixel::none) return;
        store_once(static_cast<Scalar*>(job.pixel_sums) + image * job.tasks.pixel_stride() + task, warp_sum(pixels));
    }

  private:
    using S = Scalar;

    template <int L>
    static QKERNEL_INLINE void patch(const Job& job, const Grid& grid, std::int64_t image, std::uint32_t number,
                                     Scalar* memory, Lanes<S, L>& q_sum, Lanes<S, L>& pixel_sum) {
        using F = Lanes<S, L>;
        using I = Lanes<std::int64_t, L>;
        using U = Lanes<std::uint32_t, L>;
        const std::uint32_t n = static_cast<std::uint32_t>(job.patch_size), count = n * n;
        const std::int64_t top = grid.top + std::int64_t(number / grid.columns.value) * n;
        const std::int64_t left = grid.left + std::int64_t(number % grid.columns.value) * n;
        const SharedPatch<S, L> x{memory, n, job.sobel};
        const Numbers<S>& numbers = job.numbers<S>();
        const Measure<S>& measure = numbers.measure;
        const F zero(S(0)), eps2(numbers.eps2), scale(measure.inverse_range * measure.inverse_range);
        const bool with_pixels = job.pixel != Pixel::none;

        // visit(mask, row, column) for all pixels, 32 at a time; lanes left over repeat the last one.
        const auto visit_all = [&](auto visit) {
#pragma unroll 1
            for (std::uint32_t first = 0; first < count; first += 32) {
                const U own = lane_ids<L>() + U(first);
                const auto mask = own < U(count);
                const U i = select(mask, own, U(count - 1u)), row = i / U(n);
                visit(mask, row, i - row * U(n));
            }
        };
        const auto address = [&](const Image& of, const U& row, const U& column, std::int64_t c) {
            return row.template as<std::int64_t>() * I(of.stride_h) +
                   column.template as<std::int64_t>() * I(of.stride_w) +
                   I(image * of.stride_n + c * of.stride_c + top * of.stride_h + left * of.stride_w);
        };
        const auto pixel_difference = [&](const U& row, const U& column, std::int64_t c) {
            return load_one<S>(job.pred, address(job.pred, row, column, c)) -
                   load_one<S>(job.target, address(job.target, row, column, c));
        };

        warp_barrier();
        visit_all([&](const auto& mask, const U& row, const U& column) {
            F luma = zero;
#pragma unroll 1
            for (std::int64_t c = 0; c < job.channels; ++c)
                luma = fma(load_one<S>(job.pred, address(job.pred, row, column, c)),
                           F(Luma<S>::of(job.channels, c)), luma);
            store_where(mask, memory, row * U(n) + column, luma);
            if constexpr (!BACKWARD) {
                if (!with_pixels) return;
#pragma unroll 1
                for (std::int64_t c = 0; c < job.channels; ++c)
                    pixel_sum = pixel_sum +
                                select(mask, pixel_term(pixel_difference(row, column, c), job.pixel, eps2), zero);
            }
        });
        warp_barrier();

        Moments<F> moments{zero, zero, zero};
        visit_all([&](const auto& mask, const U& row, const U& column) {
            F gx, gy;
            x.gradient(row, column, gx, gy);
            gx = select(mask, gx, zero);
            gy = select(mask, gy, zero);
            moments.a = fma(gx, gx, moments.a);
            moments.b = fma(gx, gy, moments.b);
            moments.c = fma(gy, gy, moments.c);
        });
        const auto spectrum =
            analyse(Moments<F>{warp_sum(moments.a), warp_sum(moments.b), warp_sum(moments.c)}, measure);
        Direction<F> v = principal_direction(spectrum);
        F l2 = zero;
        const auto across = [&](const F& gx, const F& gy) { return fma(gy, v.x, gx * (zero - v.y)); };
        if (measure.of_singular_values()) {
            F mixed = zero;
            visit_all([&](const auto& mask, const U& row, const U& column) {
                F gx, gy;
                x.gradient(row, column, gx, gy);
                const F p2 = select(mask, across(gx, gy), zero);
                l2 = fma(p2, p2, l2);
                mixed = fma(fma(gx, v.x, gy * v.y), p2, mixed);
            });
            l2 = warp_sum(l2);
            l2 = BACKWARD ? rotate_once_more(spectrum, l2, warp_sum(mixed), v)
                          : l2 * scale;
        }
        if constexpr (!BACKWARD) {
            q_sum = q_sum + patch_value(spectrum, l2, measure);
        } else {
            const auto adjoint = patch_adjoint(spectrum, l2, measure);
            const F factor = adjoint.along * F(q_scale_of<S>(job, grid, image));
            const F pixel_scale(grad_output_of<S>(job, image) * numbers.pixel_factor);
            const auto by_gradient = [&](const U& row, const U& column, F& hx, F& hy) {
                F gx, gy;
                x.gradient(row, column, gx, gy);
                const F p2 = across(gx, gy) * adjoint.ratio;
                hx = fma(p2, zero - v.y, gx);
                hy = fma(p2, v.x, gy);
            };
            visit_all([&](const auto& mask, const U& row, const U& column) {
                const F q = factor * (job.sobel ? sobel_adjoint(x, row, column, by_gradient)
                                                : central_adjoint(x, row, column, by_gradient));
#pragma unroll 1
                for (std::int64_t c = 0; c < job.channels; ++c) {
                    F out = q * F(Luma<S>::of(job.channels, c));
                    if (with_pixels)
                        out = out + pixel_gradient(pixel_difference(row, column, c), job.pixel, eps2, pixel_scale);
                    store_one(job.gradient, address(job.gradient, row, column, c), out, mask);
                }
            });
        }
    }

    template <int L, class ByGradient, class U = Lanes<std::uint32_t, L>>
    static QKERNEL_INLINE Lanes<S, L> central_adjoint(const SharedPatch<S, L>& x, const U& r, const U& k,
                                                      const ByGradient& by_gradient) {
        using F = Lanes<S, L>;
        const F zero(S(0));
        F sum = zero;
        // At the border a pixel is the subtrahend, or the minuend, of two differences, and these count double.
        const auto hand_on = [&](const F& h, const U& at, const Lanes<bool, L>& negative) {
            const F weighted = select(x.border(at), h + h, h);
            sum = sum + select(negative, zero - weighted, weighted);
        };
        const auto no = Lanes<bool, L>(false), yes = Lanes<bool, L>(true);
        const U last(x.n - 1u), none(0u);
        F hx, hy;
        by_gradient(r, x.before(k), hx, hy);
        hand_on(hx, x.before(k), select(k == none, yes, no));
        by_gradient(r, x.after(k), hx, hy);
        hand_on(hx, x.after(k), select(k == last, no, yes));
        by_gradient(x.before(r), k, hx, hy);
        hand_on(hy, x.before(r), select(r == none, yes, no));
        by_gradient(x.after(r), k, hx, hy);
        hand_on(hy, x.after(r), select(r == last, no, yes));
        return sum;
    }

    template <int L, class ByGradient, class U = Lanes<std::uint32_t, L>>
    static QKERNEL_INLINE Lanes<S, L> sobel_adjoint(const SharedPatch<S, L>& x, const U& r, const U& k,
                                                    const ByGradient& by_gradient) {
        using F = Lanes<S, L>;
        const F zero(S(0)), one(S(1)), two(S(2));
        F sum = zero;
        // The gradients at (r + i - 1, k + j - 1): the weight of the smoothing, times the sign of the difference.
        // Smoothing at the border is mirrored and hands its neighbour twice as much; the gradient across the border
        // is 0 whatever the pixels are, and hands on nothing.
#pragma unroll 1
        for (std::uint32_t i = 0; i < 3; ++i)
#pragma unroll 1
            for (std::uint32_t j = 0; j < 3; ++j) {
                const U row = r + U(i), column = k + U(j);  // one too large: they may lie outside
                const U end(x.n + 1u), none(0u);
                const auto outside = (row == none) | (row == end) | (column == none) | (column == end);
                const U near_r = select(outside, r, row - U(1u)), near_k = select(outside, k, column - U(1u));
                F hx, hy;
                by_gradient(near_r, near_k, hx, hy);
                const auto smoothing = [&](std::uint32_t step, const U& at) {
                    return step == 1 ? two : select(x.border(at), two, one);
                };
                const F by_x = select(outside | x.border(near_k), zero, smoothing(i, near_r) * hx);
                const F by_y = select(outside | x.border(near_r), zero, smoothing(j, near_k) * hy);
                if (j != 1) sum = j == 0 ? sum + by_x : sum - by_x;
                if (i != 1) sum = i == 0 ? sum + by_y : sum - by_y;
            }
        return sum;
    }
};

}  // namespace qkernel::cuda

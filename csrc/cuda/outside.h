// The pixels outside the whole patches: only the pixel term sees them, and their gradient of Q is 0.
#pragma once

#include "pixels.h"

namespace qkernel::cuda {

constexpr int outside_piece = 8;  // times 32 pixels: what a warp does at a time

// The image without its patches, as two rectangles: the rows above and below, one below the other; and the columns
// left and right of the patches, side by side.
struct Outside {
    std::int64_t band_pixels = 0, side_pixels = 0;
    std::uint32_t band_width = 0, side_width = 0;

    QKERNEL_INLINE Outside(std::int64_t height, std::int64_t width, const Grid& grid, int n) {
        const std::int64_t rows = std::int64_t(grid.rows) * n, columns = std::int64_t(grid.columns.value) * n;
        band_width = static_cast<std::uint32_t>(width);
        side_width = static_cast<std::uint32_t>(width - columns);
        band_pixels = (height - rows) * width;
        side_pixels = rows * (width - columns);
    }
    static QKERNEL_INLINE std::int64_t pieces(std::int64_t pixels) {
        return (pixels + 32 * outside_piece - 1) / (32 * outside_piece);
    }
    QKERNEL_INLINE std::int64_t band_pieces() const { return pieces(band_pixels); }
    QKERNEL_INLINE std::int64_t side_pieces() const { return pieces(side_pixels); }
};

// The warps for what lies outside share it, in a fixed order whatever their number.
template <class S, bool BACKWARD, int L>
QKERNEL_INLINE void outside_warp(const Job& job, std::int64_t image, std::int64_t task) {
    using F = Lanes<S, L>;
    using I = Lanes<std::int64_t, L>;
    using U = Lanes<std::uint32_t, L>;
    const Grid grid = grid_of(job);
    const std::uint32_t n = static_cast<std::uint32_t>(job.patch_size);
    const Outside outside(job.height, job.width, grid, job.patch_size);
    const Numbers<S>& numbers = job.numbers<S>();
    const F eps2(numbers.eps2), zero(S(0));
    F pixel_scale(S(0));
    // NaN where the grid is impossible.
    F q_part(S(0));
    if (BACKWARD) {
        pixel_scale = F(grad_output_of<S>(job, image) * numbers.pixel_factor);
        if (!grid.valid) q_part = zero / zero;
    }
    F sum(S(0));
    const std::int64_t bands = outside.band_pieces(), all = bands + outside.side_pieces();
#pragma unroll 1
    for (std::int64_t piece = task; piece < all; piece += job.tasks.outside) {
        const bool band = piece < bands;
        const std::int64_t first = (band ? piece : piece - bands) * (32 * outside_piece);
        const std::uint32_t width = band ? outside.band_width : outside.side_width;
        const std::int64_t left_over = (band ? outside.band_pixels : outside.side_pixels) - first;
        const U count(static_cast<std::uint32_t>(left_over < 32 * outside_piece ? left_over : 32 * outside_piece));
        const std::int64_t first_y = first / width;
        const U first_x(static_cast<std::uint32_t>(first - first_y * width));
#pragma unroll 1
        for (int j = 0; j < outside_piece; ++j) {
            const U q = lane_ids<L>() + U(32u * j);
            const auto mine = q < count;
            const U position = first_x + select(mine, q, U(0u));
            const U line = position / U(width), column = position - line * U(width);
            // Below and right of the patches: past them.
            I y = line.template as<std::int64_t>() + I(first_y), x = column.template as<std::int64_t>();
            if (band) {
                y = y + select(y < I(grid.top), I(0), I(std::int64_t(grid.rows) * n));
            } else {
                y = y + I(grid.top);
                x = x + select(x < I(grid.left), I(0), I(std::int64_t(grid.columns.value) * n));
            }
            const auto address = [&](const Image& of, std::int64_t c) {
                return y * I(of.stride_h) + x * I(of.stride_w) + I(image * of.stride_n + c * of.stride_c);
            };
#pragma unroll 1
            for (std::int64_t c = 0; c < job.channels; ++c) {
                F d = zero;
                if (job.pixel != Pixel::none)
                    d = load_one<S, L>(job.pred, address(job.pred, c)) -
                        load_one<S, L>(job.target, address(job.target, c));
                if (BACKWARD) {
                    F g = q_part;
                    if (job.pixel != Pixel::none) g = g + pixel_gradient(d, job.pixel, eps2, pixel_scale);
                    store_one(job.gradient, address(job.gradient, c), g, mine);
                } else {
                    sum = sum + select(mine, pixel_term(d, job.pixel, eps2), zero);
                }
            }
        }
    }
    if (!BACKWARD) {
        S* sums = static_cast<S*>(job.pixel_sums) + image * job.tasks.pixel_stride() + job.tasks.inside;
        store_once(sums + task, warp_sum(sum));
    }
}

}  // namespace qkernel::cuda

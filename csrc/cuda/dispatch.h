// Which kernel a call takes, and how its work is cut. RUNNER runs it: on the device, or in tests on the CPU.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>

#include "combine.h"
#include "direct.h"
#include "loop.h"
#include "spread.h"
#include "staged.h"

namespace qkernel::cuda {

// A call as the bindings make it, before it is planned. job.single and job.wide are filled in by `plan`.
struct Call {
    Job job;
    Formula formula = Formula::zhu2010;
    double threshold = 0, smoothing = 0, data_range = 1, charbonnier_eps = 0;
    double weight = 1;
    Reduction reduction = Reduction::mean;
};

// Up to so many patches for each multiprocessor are few for a backward pass: with one to a lane, a warp for every second
// of its schedulers. The gradient's bits do not depend on it. Not a constant: tests and measurements set it.
inline std::atomic<std::int64_t> few_patches{64};

constexpr int largest_patch = 64;  // whose luma in float64 fits the 48 KiB of shared memory that need no asking

inline bool is_wide(const Job& job) {
    return job.pred.dtype == Dtype::float64 || (job.pixel != Pixel::none && job.target.dtype == Dtype::float64);
}

// Whether 16 bytes can be moved at once wherever a patch begins in a row.
inline bool is_aligned(const Image& image, const Job& job) {
    const std::int64_t size = size_of(image.dtype);
    return image.stride_w == 1 && reinterpret_cast<std::uintptr_t>(image.data) % 16 == 0 &&
           image.stride_h * size % 16 == 0 && (job.images == 1 || image.stride_n * size % 16 == 0) &&
           (job.channels == 1 || image.stride_c * size % 16 == 0);
}

inline Path path_of(const Job& job, bool backward) {
    if (is_wide(job) || (job.patch_size != 8 && job.patch_size != 4)) return Path::loop;
    const bool with_pixels = job.pixel != Pixel::none;
    const bool direct =
        job.patch_size == 8 && (job.channels == 1 || job.channels == 3) && !job.offset && is_aligned(job.pred, job) &&
        (!with_pixels || (job.pixel == Pixel::l1 && job.target.dtype == job.pred.dtype &&
                          is_aligned(job.target, job))) &&
        (!backward || job.gradient.dtype == job.pred.dtype);
    if (!direct) return Path::staged;
    if (!backward) return Path::direct;
    if (job.images * (job.height / 8) * (job.width / 8) <= few_patches * job.multiprocessors) return Path::spread;
    return is_aligned(job.gradient, job) ? Path::direct : Path::staged;
}

template <class S>
Numbers<S> numbers_of(const Call& call, std::uint32_t patches) {
    const Job& job = call.job;
    const double unit = job.sobel ? Sobel<8>::unit : Central<8>::unit;
    const double images = call.reduction == Reduction::mean ? static_cast<double>(job.images) : 1;
    const double sign = job.pixel == Pixel::none ? 1 : -1;
    const double area = double(job.channels) * double(job.height) * double(job.width);
    Numbers<S> numbers;
    const double inverse_range = 1 / (call.data_range * unit);
    numbers.measure = {call.formula, S(call.threshold), S(call.smoothing), S(inverse_range),
                       S(4) * (sizeof(S) == 4 ? S(0x1p-23) : S(0x1p-52))};
    numbers.eps2 = S(call.charbonnier_eps * call.charbonnier_eps);
    numbers.q_factor = S(sign * call.weight / images * inverse_range * inverse_range);
    if (patches > 0) numbers.q_share = numbers.q_factor / S(patches);
    numbers.pixel_factor = S(1 / (area * images));
    return numbers;
}

// Cuts the work; throws where it is too much for 32 bits.
inline void plan(Call& call, bool backward) {
    Job& job = call.job;
    const std::int64_t n = job.patch_size;
    const bool with_pixels = job.pixel != Pixel::none;
    if (n < 3 || n > largest_patch) throw std::invalid_argument("patch size " + std::to_string(n) + " is not built");
    if (job.height < n || job.width < n) throw std::invalid_argument("an image is smaller than a patch");
    if (job.height >= std::int64_t(1) << 31 || job.width >= std::int64_t(1) << 31 ||
        (job.height / n) * (job.width / n) >= std::int64_t(1) << 31)
        throw std::invalid_argument("an image of " + std::to_string(job.height) + " x " + std::to_string(job.width) +
                                    " has more patches than 31 bits count");
    job.per_image = job.tasks.padded = call.reduction == Reduction::none;
    // Without weight only the pixel term is left, also where Q is not finite: all pixels lie outside the patches.
    const bool measured = !(backward && with_pixels && call.weight == 0);
    if (!measured) job.offset = nullptr;

    Grid grid;
    grid.rows = measured ? static_cast<std::uint32_t>(job.height / n) : 0;
    grid.columns = Divisor(static_cast<std::uint32_t>(job.width / n));
    job.grid = grid;
    job.single = numbers_of<float>(call, grid.count());
    job.wide = numbers_of<double>(call, grid.count());
    job.fewer_columns = Divisor(grid.columns.value - 1);
    // A sum stands for at least as many pixels as 32 patches of 8 x 8 have, so that the workspace stays small.
    job.path = path_of(job, backward);
    job.tasks.patches = static_cast<std::uint32_t>(job.path == Path::spread ? 4 : (2047 + n * n) / (n * n));
    job.gradient_is_aligned = backward && is_aligned(job.gradient, job);
    job.tasks.inside = (grid.count() + job.tasks.patches - 1) / job.tasks.patches;
    if (job.offset) {  // may cost a row and a column of patches
        --grid.rows;
        --grid.columns.value;
    }
    std::int64_t outside = 0;
    if (backward || with_pixels) {
        const Outside area(job.height, job.width, grid, job.patch_size);
        const std::int64_t side = job.offset ? job.height * area.side_width : area.side_pixels;
        outside = area.band_pieces() + Outside::pieces(side);
    }
    if (outside + job.tasks.inside >= std::int64_t(1) << 31)
        throw std::invalid_argument("an image has more pixels than 31 bits count in pieces of 256");
    job.tasks.outside = static_cast<std::uint32_t>(outside);
}

// Bytes of the sums of Q over the patches, which those of the pixel term follow: where 16 bytes begin.
inline std::int64_t q_sum_bytes(const Job& job) {
    return (job.images * job.tasks.q_stride() * (is_wide(job) ? 8 : 4) + 15) / 16 * 16;
}

// Bytes of the sums of a planned forward call. 16 are read at once, also where fewer are left.
inline std::int64_t workspace_bytes(const Job& job) {
    if (job.pixel == Pixel::none) return q_sum_bytes(job);
    return q_sum_bytes(job) + (job.images * job.tasks.pixel_stride() * (is_wide(job) ? 8 : 4) + 15) / 16 * 16;
}

inline void place_sums(Job& job, void* workspace) {
    job.q_sums = workspace;
    job.pixel_sums = static_cast<char*>(workspace) + q_sum_bytes(job);
}

// KERNEL: Direct or Spread.
template <template <class, class, bool, Pixel, int> class Kernel, bool BACKWARD, class Operator, class Runner>
void run_aligned(const Job& job, Runner& runner) {
    const auto with = [&](auto storage, auto channels) {
        using Storage = decltype(storage);
        if (job.pixel == Pixel::none)
            runner.template run<Kernel<Operator, Storage, BACKWARD, Pixel::none, channels>>(job);
        else
            runner.template run<Kernel<Operator, Storage, BACKWARD, Pixel::l1, channels>>(job);
    };
    const auto of_storage = [&](auto channels) {
        if (job.pred.dtype == Dtype::float32)
            with(float{}, channels);
        else
            with(Half{}, channels);
    };
    if (job.channels == 1)
        of_storage(std::integral_constant<int, 1>{});
    else
        of_storage(std::integral_constant<int, 3>{});
}

// The kernels of a planned call; after a forward pass its sums are to be combined.
template <bool BACKWARD, class Runner>
void run(const Job& job, Runner& runner) {
    switch (job.path) {
        case Path::direct:
            return job.sobel ? run_aligned<Direct, BACKWARD, Sobel<8>>(job, runner)
                             : run_aligned<Direct, BACKWARD, Central<8>>(job, runner);
        case Path::spread:
            if constexpr (BACKWARD)
                return job.sobel ? run_aligned<Spread, BACKWARD, Sobel<8>>(job, runner)
                                 : run_aligned<Spread, BACKWARD, Central<8>>(job, runner);
            return;
        case Path::staged:
            if (job.patch_size == 8)
                return job.sobel ? runner.template run<Staged<Sobel<8>, 8, BACKWARD>>(job)
                                 : runner.template run<Staged<Central<8>, 8, BACKWARD>>(job);
            return job.sobel ? runner.template run<Staged<Sobel<4>, 4, BACKWARD>>(job)
                             : runner.template run<Staged<Central<4>, 4, BACKWARD>>(job);
        case Path::loop:
            return is_wide(job) ? runner.template run<Loop<double, BACKWARD>>(job)
                                : runner.template run<Loop<float, BACKWARD>>(job);
    }
}

// Shared memory of a warp.
template <class Body>
std::int64_t scratch_bytes(const Job& job) {
    if (Body::scratch >= 0) return Body::scratch;
    return std::int64_t(job.patch_size) * job.patch_size * sizeof(typename Body::Scalar);
}

}  // namespace qkernel::cuda

// One call of the CUDA engine, as plain data: what the bindings fill in and the kernels read.
#pragma once

#include <cstdint>

#include "../patch.h"

namespace qkernel::cuda {

enum class Dtype : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };
enum class Pixel : int { none = 0, l1 = 1, mse = 2, charbonnier = 3 };
enum class Reduction : int { mean = 0, sum = 1, none = 2 };
enum class Path { direct, spread, staged, loop };

QKERNEL_INLINE std::int64_t size_of(Dtype dtype) {
    return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

// N x C x H x W on the device; strides count elements.
struct Image {
    void* data = nullptr;
    Dtype dtype = Dtype::float32;
    std::int64_t stride_n = 0, stride_c = 0, stride_h = 0, stride_w = 0;
};

// The numbers of a call in the precision S of the computation.
template <class S>
struct Numbers {
    Measure<S> measure{};  // of gradients in the operator's own unit, see gradient.h
    S eps2 = 0;  // charbonnier_eps^2
    // Backward: grad_output times this, over the number of patches, is what a patch's Q weighs, times inverse_range^2,
    // for it is differentiated by pixels. `q_share` is over the number of patches without an offset.
    S q_factor = 0, q_share = 0;
    S pixel_factor = 0;  // and this what the pixel term of a pixel weighs
};

// A warp is given `patches` consecutive patches of one image, or a piece of the image outside them.
struct Tasks {
    std::uint32_t patches = 32;  // of one warp
    std::uint32_t inside = 0;    // warps for patches, of one image
    std::uint32_t outside = 0;   // warps for what lies outside, of one image

    bool padded = false;  // whether every image's sums begin where 16 bytes do

    // From one image's sums to the next.
    QKERNEL_INLINE std::int64_t q_stride() const { return stride(inside); }
    QKERNEL_INLINE std::int64_t pixel_stride() const { return stride(std::int64_t(inside) + outside); }

  private:
    QKERNEL_INLINE std::int64_t stride(std::int64_t sums) const { return padded ? (sums + 3) / 4 * 4 : sums; }
};

// Division by a number known on the host: of x < 2^31, without a division instruction.
struct Divisor {
    std::uint32_t value = 1, multiplier = 0x80000001u, shift = 31;

    Divisor() = default;
    explicit Divisor(std::uint32_t d) : value(d) {
        if (d == 0) return;  // no columns: nothing is divided by them
        std::uint32_t bits = 0;
        while ((std::uint64_t(1) << bits) < d) ++bits;
        shift = 31 + bits;
        multiplier = static_cast<std::uint32_t>((std::uint64_t(1) << shift) / d + 1);
    }
};

// Where the patches lie.
struct Grid {
    std::uint32_t top = 0, left = 0, rows = 0;
    Divisor columns;
    bool valid = true;

    QKERNEL_INLINE std::uint32_t count() const { return rows * columns.value; }
};

// What most kernels read comes first: close together, for a launch finds none of it in the cache.
struct Job {
    Image pred;
    Grid grid;  // at offset (0, 0)
    Tasks tasks;
    Numbers<float> single{};
    // Forward: sums by image and warp, S each; pixel_sums has those of the warps outside too.
    void* q_sums = nullptr;
    void* pixel_sums = nullptr;
    // Backward: one S, or one per image.
    const void* grad_output = nullptr;
    bool per_image = false;
    bool gradient_is_aligned = false;
    int multiprocessors = 132;  // of the device; on the CPU an H100's
    Path path = Path::loop;

    Image gradient, target;  // gradient in a backward pass, target with a pixel term
    std::int64_t images = 0, channels = 0, height = 0, width = 0;
    const std::int32_t* offset = nullptr;  // on the device: first row and column of the patch grid; or (0, 0)
    Divisor fewer_columns;                 // grid.columns - 1, which an offset may leave
    int patch_size = 8;
    bool sobel = false;
    Pixel pixel = Pixel::none;
    Numbers<double> wide{};

    template <class S>
    QKERNEL_INLINE const Numbers<S>& numbers() const {
        if constexpr (sizeof(S) == 4)
            return single;
        else
            return wide;
    }
};

// An offset that is out of range must not be read out of bounds: then no pixel belongs to a patch, and Q is NaN.
QKERNEL_INLINE Grid grid_of(const Job& job) {
    if (!job.offset) return job.grid;
    Grid grid = job.grid;
    const std::int64_t n = job.patch_size, top = job.offset[0], left = job.offset[1];
    grid.valid = top >= 0 && top < n && top + n <= job.height && left >= 0 && left < n && left + n <= job.width;
    if (!grid.valid) {
        grid.rows = 0;
        return grid;
    }
    grid.top = static_cast<std::uint32_t>(top);
    grid.left = static_cast<std::uint32_t>(left);
    // Less than a patch away from (0, 0), at most one row and one column of patches drop out.
    if (top + n * grid.rows > job.height) --grid.rows;
    if (left + n * grid.columns.value > job.width) grid.columns = job.fewer_columns;
    return grid;
}

template <class S>
QKERNEL_INLINE S grad_output_of(const Job& job, std::int64_t image) {
    return static_cast<const S*>(job.grad_output)[job.per_image ? image : 0];
}

template <class S>
QKERNEL_INLINE S q_scale_of(const Job& job, const Grid& grid, std::int64_t image) {
    const Numbers<S>& numbers = job.numbers<S>();
    return grad_output_of<S>(job, image) *
           (job.offset ? numbers.q_factor / static_cast<S>(grid.count()) : numbers.q_share);
}

}  // namespace qkernel::cuda

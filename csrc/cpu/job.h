// One call of the CPU engine, as plain data: what the bindings fill in and the kernels read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../patch.h"

namespace qkernel::cpu {

enum class Dtype : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };
enum class Pixel : int { none = 0, l1 = 1, mse = 2, charbonnier = 3 };

// N x C x H x W; strides count elements.
struct Image {
    void* data = nullptr;
    Dtype dtype = Dtype::float32;
    std::int64_t stride_n = 0, stride_c = 0, stride_h = 0, stride_w = 0;
};

struct Job {
    std::int64_t images = 0, channels = 0, height = 0, width = 0;
    Image pred, target, gradient;  // target with a pixel term, gradient in a backward pass

    int patch_size = 8;
    std::int64_t top = 0, left = 0;      // first row and column of the patch grid
    std::int64_t rows = 0, columns = 0;  // whole patches
    bool sobel = false;
    Measure<double> measure{};

    Pixel pixel = Pixel::none;
    double charbonnier_eps = 0;

    // Forward: sums for image i and patch row r at [i * rows + r], combined by the caller in this order.
    double* q_sums = nullptr;
    double* pixel_sums = nullptr;

    // Backward: what the Q of one patch, and the pixel term of one pixel, of image i are multiplied with.
    const double* q_scales = nullptr;
    const double* pixel_scales = nullptr;
    bool stream_gradient = false;  // written past the cache; its rows are aligned to cache lines then

    // Elements of the image that patch row r is responsible for: its patches, and the margins next to them.
    QKERNEL_INLINE std::int64_t first_row(std::int64_t r) const { return r == 0 ? 0 : top + r * patch_size; }
    QKERNEL_INLINE std::int64_t last_row(std::int64_t r) const {
        return r + 1 == rows ? height : top + (r + 1) * patch_size;
    }
};

// Computes one row of patches of one image. The scratch is private to the calling thread.
using StripKernel = void (*)(const Job& job, std::int64_t image, std::int64_t row, void* scratch);

// What one instruction set offers for a job.
struct Strip {
    StripKernel kernel = nullptr;
    std::size_t scratch_bytes = 0;
};

Strip portable_strip(const Job& job, bool backward);
#ifdef QKERNEL_X86
Strip avx2_strip(const Job& job, bool backward);
Strip avx512_strip(const Job& job, bool backward);
#endif

}  // namespace qkernel::cpu

#include "engine.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "parallel.h"

#ifdef QKERNEL_X86
#include <xmmintrin.h>
#endif

namespace qkernel::cpu {
namespace {

// Less work than this is not worth waking a thread for (a few microseconds either way).
constexpr std::int64_t pixels_per_thread = 1 << 14;

// A gradient from here on is written past the cache. A line that is written into it is first read from memory, so the
// backward pass moves three images where two would do; but whoever reads the gradient next finds none of it there. With
// 32 MB of cache, and counting that next reader, the two came out even at 8 to 13 MB where the image was in the cache, and
// below 4 MB where it was not.
constexpr std::int64_t streamed_bytes = 12 << 20;

bool is_streamed(const Job& job) {
    const Image& g = job.gradient;
    if (g.stride_w != 1 || (g.dtype != Dtype::float32 && g.dtype != Dtype::float64)) return false;
    const std::int64_t line = 64, size = g.dtype == Dtype::float64 ? 8 : 4;
    const auto whole_lines = [&](std::int64_t stride) { return stride * size % line == 0; };
    return job.images * job.channels * job.height * job.width * size >= streamed_bytes &&
           reinterpret_cast<std::uintptr_t>(g.data) % line == 0 && whole_lines(g.stride_n) &&
           whole_lines(g.stride_c) && whole_lines(g.stride_h);
}

struct AlignedDelete {
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t(64)); }
};

Strip pick(const Call& call, bool is_backward) {
#ifdef QKERNEL_X86
    if (call.simd == Simd::avx512) return avx512_strip(call.job, is_backward);
    if (call.simd == Simd::avx2) return avx2_strip(call.job, is_backward);
#endif
    return portable_strip(call.job, is_backward);
}

void run(const Call& call, bool is_backward) {
    const Job& job = call.job;
    const Strip strip = pick(call, is_backward);
    const std::int64_t pixels = job.images * job.channels * job.height * job.width;
    const int threads =
        static_cast<int>(std::min<std::int64_t>(call.threads, std::max<std::int64_t>(1, pixels / pixels_per_thread)));
    const std::size_t bytes = (strip.scratch_bytes + 127) / 64 * 64;
    std::unique_ptr<std::byte[], AlignedDelete> scratch(
        static_cast<std::byte*>(::operator new(bytes * threads, std::align_val_t(64))));
    struct Context {
        const Job& job;
        Strip strip;
        std::byte* scratch;
        std::size_t bytes;
    } context{job, strip, scratch.get(), bytes};
    const Tasks tasks = [](void* data, int thread, std::int64_t first, std::int64_t last) {
        const Context& c = *static_cast<const Context*>(data);
        for (std::int64_t task = first; task < last; ++task)
            c.strip.kernel(c.job, task / c.job.rows, task % c.job.rows, c.scratch + thread * c.bytes);
#ifdef QKERNEL_X86
        if (c.job.stream_gradient) _mm_sfence();  // what was written past the cache, before whoever waits for this
#endif
    };
    parallel_for(threads, job.images * job.rows, tasks, &context);
}

void put(void* to, bool wide, std::int64_t i, double value) {
    if (wide)
        static_cast<double*>(to)[i] = value;
    else
        static_cast<float*>(to)[i] = static_cast<float>(value);
}

// Fixed order and double precision, whatever the number of threads: the same bits every time.
double sum(const double* values, std::int64_t count) {
    double total = 0;
    for (std::int64_t i = 0; i < count; ++i) total += values[i];
    return total;
}

void put_reduced(void* to, bool wide, std::int64_t first, const std::vector<double>& values, Reduction reduction) {
    const auto count = static_cast<std::int64_t>(values.size());
    if (reduction == Reduction::none) {
        for (std::int64_t i = 0; i < count; ++i) put(to, wide, first * count + i, values[i]);
        return;
    }
    const double total = sum(values.data(), count);
    put(to, wide, first, reduction == Reduction::mean ? total / static_cast<double>(count) : total);
}

}  // namespace

Simd best_simd() {
#ifdef QKERNEL_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return Simd::avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return Simd::avx2;
#endif
    return Simd::portable;
}

void forward(Call& call, void* value, void* terms, bool wide) {
    Job& job = call.job;
    const bool with_pixels = job.pixel != Pixel::none;
    std::vector<double> q_sums(job.images * job.rows), pixel_sums(with_pixels ? job.images * job.rows : 0);
    job.q_sums = q_sums.data();
    job.pixel_sums = pixel_sums.data();
    run(call, false);

    std::vector<double> q(job.images), pixels(with_pixels ? job.images : 0), loss(job.images);
    for (std::int64_t i = 0; i < job.images; ++i) {
        q[i] = sum(&q_sums[i * job.rows], job.rows) / static_cast<double>(job.rows * job.columns);
        loss[i] = call.weight * q[i];
        if (with_pixels) {
            pixels[i] = sum(&pixel_sums[i * job.rows], job.rows) /
                        static_cast<double>(job.channels * job.height * job.width);
            // Without weight the loss is the pixel term alone, also where Q is not finite.
            loss[i] = call.weight == 0 ? pixels[i] : pixels[i] - loss[i];
        }
    }
    put_reduced(value, wide, 0, loss, call.reduction);
    if (with_pixels) {
        put_reduced(terms, wide, 0, pixels, call.reduction);
        put_reduced(terms, wide, 1, q, call.reduction);
    }
}

void backward(Call& call, const void* grad_output, bool wide) {
    Job& job = call.job;
    std::vector<double> q_scales(job.images), pixel_scales(job.images);
    for (std::int64_t i = 0; i < job.images; ++i) {
        const std::int64_t k = call.reduction == Reduction::none ? i : 0;
        double g = wide ? static_cast<const double*>(grad_output)[k] : static_cast<const float*>(grad_output)[k];
        if (call.reduction == Reduction::mean) g /= static_cast<double>(job.images);
        const double sign = job.pixel == Pixel::none ? 1 : -1;
        q_scales[i] = sign * g * call.weight / static_cast<double>(job.rows * job.columns);
        pixel_scales[i] = g / static_cast<double>(job.channels * job.height * job.width);
    }
    job.q_scales = q_scales.data();
    job.pixel_scales = pixel_scales.data();
    job.stream_gradient = is_streamed(job);
    run(call, true);
}

}  // namespace qkernel::cpu

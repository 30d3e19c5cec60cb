// Runs of pixels in and out of images of any dtype and strides, as float or double.
// Included inside an unnamed namespace, after the vectors.
#pragma once

QKERNEL_INLINE float from_bits(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

QKERNEL_INLINE std::uint32_t to_bits(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

struct BFloat16 {
    std::uint16_t bits;
    static QKERNEL_INLINE float to_float(BFloat16 h) { return from_bits(std::uint32_t(h.bits) << 16); }
    static QKERNEL_INLINE BFloat16 from_float(float f) {
        const std::uint32_t b = to_bits(f);
        if ((b & 0x7fffffffu) > 0x7f800000u) return {std::uint16_t((b >> 16) | 0x40)};  // quiet NaN
        return {std::uint16_t((b + 0x7fffu + ((b >> 16) & 1)) >> 16)};                  // nearest, ties to even
    }
};

struct Float16 {
    std::uint16_t bits;
#ifdef __F16C__
    static QKERNEL_INLINE float to_float(Float16 h) { return _cvtsh_ss(h.bits); }
    static QKERNEL_INLINE Float16 from_float(float f) { return {std::uint16_t(_cvtss_sh(f, 0))}; }
#else
    static QKERNEL_INLINE float to_float(Float16 h) {
        const std::uint32_t sign = std::uint32_t(h.bits & 0x8000u) << 16, rest = h.bits & 0x7fffu;
        if (rest >= 0x7c00u) return from_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);  // inf, NaN
        // Placed 112 exponents too low, a multiplication puts normal and subnormal numbers right.
        return from_bits(sign | to_bits(from_bits(rest << 13) * 0x1p112f));
    }
    static QKERNEL_INLINE Float16 from_float(float f) {
        const std::uint32_t b = to_bits(f), sign = (b >> 16) & 0x8000u, rest = b & 0x7fffffffu;
        if (rest > 0x7f800000u) return {std::uint16_t(sign | 0x7e00u)};
        if (rest >= 0x477ff000u) return {std::uint16_t(sign | 0x7c00u)};  // from 65520 on: inf
        if (rest < 0x38800000u)  // subnormal: adding 0.5 lets the float's own rounding do it
            return {std::uint16_t(sign | (to_bits(from_bits(rest) + 0.5f) - 0x3f000000u))};
        return {std::uint16_t(sign | ((rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1)) >> 13))};
    }
#endif
};

QKERNEL_INLINE double widen(float x) { return x; }
QKERNEL_INLINE double widen(double x) { return x; }
QKERNEL_INLINE float widen(BFloat16 x) { return BFloat16::to_float(x); }
QKERNEL_INLINE float widen(Float16 x) { return Float16::to_float(x); }
template <class S>
QKERNEL_INLINE void narrow(S x, float& out) { out = float(x); }
template <class S>
QKERNEL_INLINE void narrow(S x, double& out) { out = double(x); }
template <class S>
QKERNEL_INLINE void narrow(S x, BFloat16& out) { out = BFloat16::from_float(float(x)); }
template <class S>
QKERNEL_INLINE void narrow(S x, Float16& out) { out = Float16::from_float(float(x)); }

template <class From, class S>
void convert_in(const From* src, std::int64_t stride, std::int64_t count, S* dst) {
    if (stride == 1)
        for (std::int64_t i = 0; i < count; ++i) dst[i] = S(widen(src[i]));
    else if (stride == 3)  // a channel of interleaved RGB: for a stride that it knows the compiler uses shuffles
        for (std::int64_t i = 0; i < count; ++i) dst[i] = S(widen(src[3 * i]));
    else
        for (std::int64_t i = 0; i < count; ++i) dst[i] = S(widen(src[i * stride]));
}

template <class To, class S>
void convert_out(const S* src, To* dst, std::int64_t stride, std::int64_t count) {
    if (stride == 1)
        for (std::int64_t i = 0; i < count; ++i) narrow(src[i], dst[i]);
    else
        for (std::int64_t i = 0; i < count; ++i) narrow(src[i], dst[i * stride]);
}

#ifdef __F16C__
// The one conversion that compilers do not vectorise by themselves.
void convert_in(const Float16* src, std::int64_t stride, std::int64_t count, float* dst) {
    std::int64_t i = 0;
    if (stride == 1)
        for (; i + 8 <= count; i += 8)
            _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i))));
    for (; i < count; ++i) dst[i] = widen(src[i * stride]);
}

void convert_out(const float* src, Float16* dst, std::int64_t stride, std::int64_t count) {
    std::int64_t i = 0;
    if (stride == 1)
        for (; i + 8 <= count; i += 8)
            _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), _mm256_cvtps_ph(_mm256_loadu_ps(src + i), 0));
    for (; i < count; ++i) narrow(src[i], dst[i * stride]);
}
#endif

template <class S>
constexpr Dtype dtype_of = sizeof(S) == 4 ? Dtype::float32 : Dtype::float64;

QKERNEL_INLINE std::int64_t element_bytes(Dtype dtype) {
    return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
}

// Whether a run of pixels can be used where it lies.
template <class S>
QKERNEL_INLINE bool is_direct(const Image& image) {
    return image.dtype == dtype_of<S> && image.stride_w == 1;
}

QKERNEL_INLINE std::int64_t element(const Image& image, std::int64_t n, std::int64_t c, std::int64_t y,
                                    std::int64_t x) {
    return n * image.stride_n + c * image.stride_c + y * image.stride_h + x * image.stride_w;
}

// `count` pixels from (y, x) on: where they lie, or converted into `buffer`.
template <class S>
const S* read_run(const Image& image, std::int64_t n, std::int64_t c, std::int64_t y, std::int64_t x,
                  std::int64_t count, S* buffer) {
    const std::int64_t first = element(image, n, c, y, x), stride = image.stride_w;
    if (is_direct<S>(image)) return static_cast<const S*>(image.data) + first;
    switch (image.dtype) {
        case Dtype::float32: convert_in(static_cast<const float*>(image.data) + first, stride, count, buffer); break;
        case Dtype::float64: convert_in(static_cast<const double*>(image.data) + first, stride, count, buffer); break;
        case Dtype::bfloat16: convert_in(static_cast<const BFloat16*>(image.data) + first, stride, count, buffer); break;
        case Dtype::float16: convert_in(static_cast<const Float16*>(image.data) + first, stride, count, buffer); break;
    }
    return buffer;
}

template <class S>
void write_run(const Image& image, std::int64_t n, std::int64_t c, std::int64_t y, std::int64_t x,
               std::int64_t count, const S* values) {
    const std::int64_t first = element(image, n, c, y, x), stride = image.stride_w;
    switch (image.dtype) {
        case Dtype::float32: convert_out(values, static_cast<float*>(image.data) + first, stride, count); break;
        case Dtype::float64: convert_out(values, static_cast<double*>(image.data) + first, stride, count); break;
        case Dtype::bfloat16: convert_out(values, static_cast<BFloat16*>(image.data) + first, stride, count); break;
        case Dtype::float16: convert_out(values, static_cast<Float16*>(image.data) + first, stride, count); break;
    }
}

QKERNEL_INLINE bool is_interleaved_rgb(const Image& image, std::int64_t channels) {
    return channels == 3 && image.stride_c == 1 && image.stride_w == 3;
}

template <class To, class S>
void interleave(const S* red, const S* green, const S* blue, To* dst, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
        narrow(red[i], dst[3 * i]);
        narrow(green[i], dst[3 * i + 1]);
        narrow(blue[i], dst[3 * i + 2]);
    }
}

// Interleaved RGB: the three channels of `count` pixels from (y, x) on, in runs that are `room` apart.
template <class S>
void write_rgb(const Image& image, std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t count, const S* runs,
               std::int64_t room) {
    const std::int64_t first = element(image, n, 0, y, x);
    const S *green = runs + room, *blue = green + room;
    switch (image.dtype) {
        case Dtype::float32: interleave(runs, green, blue, static_cast<float*>(image.data) + first, count); break;
        case Dtype::float64: interleave(runs, green, blue, static_cast<double*>(image.data) + first, count); break;
        case Dtype::bfloat16: interleave(runs, green, blue, static_cast<BFloat16*>(image.data) + first, count); break;
        case Dtype::float16: interleave(runs, green, blue, static_cast<Float16*>(image.data) + first, count); break;
    }
}

// The luma of `count` pixels from (y, x) on; `buffers` has room for four runs.
template <class V, class S>
const S* read_luma(const Job& job, std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t count, S* buffers,
                   std::int64_t room) {
    if (job.channels == 1) return read_run(job.pred, n, 0, y, x, count, buffers);
    const S* red = read_run(job.pred, n, 0, y, x, count, buffers + room);
    const S* green = read_run(job.pred, n, 1, y, x, count, buffers + 2 * room);
    const S* blue = read_run(job.pred, n, 2, y, x, count, buffers + 3 * room);
    for (std::int64_t i = 0; i < count; ++i)
        buffers[i] = S(0.299) * red[i] + S(0.587) * green[i] + S(0.114) * blue[i];
    return buffers;
}

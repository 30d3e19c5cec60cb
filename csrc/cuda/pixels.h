// Pixels in and out of memory, in any dtype.
#pragma once

#include "job.h"
#include "lanes.h"

namespace qkernel::cuda {

struct BFloat16 {
    std::uint16_t bits;
};
struct Float16 {
    std::uint16_t bits;
};
// Either of them, which the dtype tells at run time: half as many kernels to compile.
struct Half {
    std::uint16_t bits;
};

QKERNEL_INLINE float from_bits(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
    return __uint_as_float(bits);
#else
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
#endif
}

QKERNEL_INLINE std::uint32_t to_bits(float value) {
#if defined(__CUDA_ARCH__)
    return __float_as_uint(value);
#else
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
#endif
}

QKERNEL_INLINE float widen(float x) { return x; }
QKERNEL_INLINE double widen(double x) { return x; }
QKERNEL_INLINE float widen(BFloat16 x) { return from_bits(static_cast<std::uint32_t>(x.bits) << 16); }
QKERNEL_INLINE float widen(Float16 x) {
#if defined(__CUDA_ARCH__)
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x.bits));
    return f;
#else
    const std::uint32_t sign = (x.bits & 0x8000u) << 16, rest = x.bits & 0x7fffu;
    if (rest >= 0x7c00u) return from_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);  // inf, NaN
    // Placed 112 exponents too low, a multiplication puts normal and subnormal numbers right.
    return from_bits(sign | to_bits(from_bits(rest << 13) * 0x1p112f));
#endif
}

// To the nearest, ties to even.
QKERNEL_INLINE void narrow(float x, float& out) { out = x; }
QKERNEL_INLINE void narrow(float x, double& out) { out = x; }
QKERNEL_INLINE void narrow(float x, BFloat16& out) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
#else
    // In integers: sm_75 has no instruction for it.
    const std::uint32_t b = to_bits(x);
    if ((b & 0x7fffffffu) > 0x7f800000u)
        out.bits = static_cast<std::uint16_t>((b >> 16) | 0x40);  // quiet NaN
    else
        out.bits = static_cast<std::uint16_t>((b + 0x7fffu + ((b >> 16) & 1)) >> 16);
#endif
}
QKERNEL_INLINE void narrow(float x, Float16& out) {
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
#else
    const std::uint32_t b = to_bits(x), sign = (b >> 16) & 0x8000u, rest = b & 0x7fffffffu;
    std::uint32_t h;
    if (rest > 0x7f800000u)
        h = 0x7e00u;
    else if (rest >= 0x477ff000u)
        h = 0x7c00u;  // from 65520 on: inf
    else if (rest < 0x38800000u)
        h = to_bits(from_bits(rest) + 0.5f) - 0x3f000000u;  // subnormal: adding 0.5 lets the float's rounding do it
    else
        h = (rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1)) >> 13;
    out.bits = static_cast<std::uint16_t>(sign | h);
#endif
}
QKERNEL_INLINE void narrow(double x, float& out) { out = static_cast<float>(x); }
QKERNEL_INLINE void narrow(double x, double& out) { out = x; }
// Through float it is rounded twice; beside a float64 target a half-precision gradient has no more digits than that.
QKERNEL_INLINE void narrow(double x, BFloat16& out) { narrow(static_cast<float>(x), out); }
QKERNEL_INLINE void narrow(double x, Float16& out) { narrow(static_cast<float>(x), out); }

// Two neighbours as one word.
QKERNEL_INLINE std::uint32_t narrow_pair(float low, float high, BFloat16) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    std::uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    BFloat16 a, b;
    narrow(low, a);
    narrow(high, b);
    return a.bits | static_cast<std::uint32_t>(b.bits) << 16;
#endif
}
QKERNEL_INLINE std::uint32_t narrow_pair(float low, float high, Float16) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    std::uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    Float16 a, b;
    narrow(low, a);
    narrow(high, b);
    return a.bits | static_cast<std::uint32_t>(b.bits) << 16;
#endif
}

// 16 bytes, moved by one instruction.
struct alignas(16) Chunk {
    std::uint32_t w[4];
};

QKERNEL_INLINE Chunk load_chunk(const void* from) {
#if defined(__CUDA_ARCH__)
    const uint4 u = __ldg(static_cast<const uint4*>(from));
    return {u.x, u.y, u.z, u.w};
#else
    return *static_cast<const Chunk*>(from);
#endif
}

// To memory of the device, or not at all.
QKERNEL_INLINE void store_chunk(void* to, const Chunk& c, bool wanted) {
#if defined(__CUDA_ARCH__)
    // Spelled out: the compiler splits some of these stores in four, and branches around them.
    asm volatile(
        "{\n\t.reg .pred wanted;\n\tsetp.ne.u32 wanted, %5, 0;\n\t"
        "@wanted st.global.v4.b32 [%0], {%1, %2, %3, %4};\n\t}" ::"l"(to),
        "r"(c.w[0]), "r"(c.w[1]), "r"(c.w[2]), "r"(c.w[3]), "r"(static_cast<unsigned>(wanted))
        : "memory");
#else
    if (wanted) *static_cast<Chunk*>(to) = c;
#endif
}

// To shared memory.
QKERNEL_INLINE void share_chunk(float* to, const Chunk& c) {
#if defined(__CUDA_ARCH__)
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(
                     static_cast<std::uint32_t>(__cvta_generic_to_shared(to))),
                 "r"(c.w[0]), "r"(c.w[1]), "r"(c.w[2]), "r"(c.w[3])
                 : "memory");
#else
    *reinterpret_cast<Chunk*>(to) = c;
#endif
}

QKERNEL_INLINE float unpack(const Chunk& c, int i, float) { return from_bits(c.w[i]); }
QKERNEL_INLINE float unpack(const Chunk& c, int i, BFloat16) {
    return from_bits(i % 2 ? c.w[i / 2] & 0xffff0000u : c.w[i / 2] << 16);
}
QKERNEL_INLINE float unpack(const Chunk& c, int i, Float16 tag) {
    tag.bits = static_cast<std::uint16_t>(i % 2 ? c.w[i / 2] >> 16 : c.w[i / 2]);
    return widen(tag);
}

// Eight pixels side by side, as they lie in memory.
template <class Storage, int L>
struct PackedRow {
    static constexpr int per_chunk = 16 / sizeof(Storage), chunks = 8 / per_chunk;
    Chunk c[chunks][L];

    // From an address that is a multiple of 16 bytes: row number `row` from `at` on.
    QKERNEL_INLINE void load(const Image& image, int row, const Lanes<std::int64_t, L>& at) {
        const Storage* from = static_cast<const Storage*>(image.data) + row * image.stride_h;
#pragma unroll
        for (int k = 0; k < chunks; ++k)
#pragma unroll
            for (int i = 0; i < L; ++i) c[k][i] = load_chunk(from + at.v[i] + k * per_chunk);
    }
    template <class Tag>
    QKERNEL_INLINE void unpack_as(Tag tag, Lanes<float, L>* x) const {
#pragma unroll
        for (int k = 0; k < 8; ++k)
#pragma unroll
            for (int i = 0; i < L; ++i) x[k].v[i] = unpack(c[k / per_chunk][i], k % per_chunk, tag);
    }
};

// FUNCTION of what is stored as a tag: one decision for all that is in it.
template <class Storage, class Function>
QKERNEL_INLINE void stored(Dtype dtype, Function function) {
    if constexpr (sizeof(Storage) == 4)
        function(float{});
    else if (dtype == Dtype::bfloat16)
        function(BFloat16{});
    else
        function(Float16{});
}

// ROWS rows of eight pixels side by side, from addresses that are multiples of 16 bytes.
template <int ROWS, class Storage, int L>
QKERNEL_INLINE void load_rows(const Image& image, int first, const Lanes<std::int64_t, L>& at, Lanes<float, L>* x) {
    PackedRow<Storage, L> rows[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) rows[r].load(image, first + r, at);
    stored<Storage>(image.dtype, [&](auto tag) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) rows[r].unpack_as(tag, x + 8 * r);
    });
}

// Eight floats as a chunk of half-precision pixels.
QKERNEL_INLINE Chunk pack(const float* x, Dtype dtype) {
    Chunk c;
    const auto pack_as = [&](auto tag) {
#pragma unroll
        for (int k = 0; k < 4; ++k) c.w[k] = narrow_pair(x[2 * k], x[2 * k + 1], tag);
    };
    if (dtype == Dtype::bfloat16)
        pack_as(BFloat16{});
    else
        pack_as(Float16{});
    return c;
}

template <class S, int L>
QKERNEL_INLINE Lanes<S, L> load_one(const Image& image, const Lanes<std::int64_t, L>& at) {
    const auto from = [&](auto tag) {
        using Storage = decltype(tag);
        const Storage* data = static_cast<const Storage*>(image.data);
        return Lanes<S, L>::template each<S>([&](int i) { return static_cast<S>(widen(data[at.v[i]])); });
    };
    switch (image.dtype) {
        case Dtype::float32: return from(float{});
        case Dtype::bfloat16: return from(BFloat16{});
        case Dtype::float16: return from(Float16{});
        default:
            if constexpr (sizeof(S) == 8) return from(double{});
            return Lanes<S, L>(S(0));  // float64 is never computed in float
    }
}

// Of memory of the device, which an address that was a number does not tell the compiler.
QKERNEL_INLINE float load_pixel(std::int64_t from, float) {
#if defined(__CUDA_ARCH__)
    float x;
    asm("ld.global.f32 %0, [%1];" : "=f"(x) : "l"(from));
    return x;
#else
    return *reinterpret_cast<const float*>(from);
#endif
}
template <class Storage>
QKERNEL_INLINE Storage load_pixel(std::int64_t from, Storage x) {
    static_assert(sizeof(Storage) == 2, "half precision");
#if defined(__CUDA_ARCH__)
    asm("ld.global.u16 %0, [%1];" : "=h"(x.bits) : "l"(from));
#else
    x = *reinterpret_cast<const Storage*>(from);
#endif
    return x;
}

// ROWS times COUNT pixels of each lane, `offset` bytes from addresses and `row` bytes below one another: one decision on
// the dtype for all of them, and all loads under way at once.
template <int ROWS, int COUNT, class S, int L>
QKERNEL_INLINE void load_some(Dtype dtype, const Lanes<std::int64_t, L>* at, std::int64_t offset, std::int64_t row,
                              Lanes<S, L>* x) {
    const auto from = [&](auto tag) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int j = 0; j < COUNT; ++j)
                x[r * COUNT + j] = Lanes<S, L>::template each<S>(
                    [&](int i) { return static_cast<S>(widen(load_pixel(at[j].v[i] + (offset + r * row), tag))); });
    };
    switch (dtype) {
        case Dtype::float32: from(float{}); break;
        case Dtype::bfloat16: from(BFloat16{}); break;
        default: from(Float16{});
    }
}

template <class S, int L>
QKERNEL_INLINE void store_one(const Image& image, const Lanes<std::int64_t, L>& at, const Lanes<S, L>& value,
                              const Lanes<bool, L>& mask) {
    const auto to = [&](auto tag) {
        using Storage = decltype(tag);
        Storage* data = static_cast<Storage*>(image.data);
#pragma unroll
        for (int i = 0; i < L; ++i)
            if (mask.v[i]) narrow(value.v[i], data[at.v[i]]);
    };
    switch (image.dtype) {
        case Dtype::float32: to(float{}); break;
        case Dtype::bfloat16: to(BFloat16{}); break;
        case Dtype::float16: to(Float16{}); break;
        default:
            if constexpr (sizeof(S) == 8) to(double{});
    }
}

// COUNT pixels of each lane, one below the other from `at` on: one decision on the dtype.
template <int COUNT, class S, int L>
QKERNEL_INLINE void store_column(const Image& image, const Lanes<std::int64_t, L>& at, const Lanes<S, L>* x,
                                 const Lanes<bool, L>& mask) {
    const auto to = [&](auto tag) {
        using Storage = decltype(tag);
        Storage* data = static_cast<Storage*>(image.data);
#pragma unroll
        for (int r = 0; r < COUNT; ++r, data += image.stride_h)
#pragma unroll
            for (int i = 0; i < L; ++i)
                if (mask.v[i]) narrow(x[r].v[i], data[at.v[i]]);
    };
    switch (image.dtype) {
        case Dtype::float32: to(float{}); break;
        case Dtype::bfloat16: to(BFloat16{}); break;
        default: to(Float16{});
    }
}

// The pixel terms: |d|, d^2, sqrt(d^2 + eps^2); and their derivatives, times `scale`.
template <class F>
QKERNEL_INLINE F pixel_term(F d, Pixel pixel, F eps2) {
    if (pixel == Pixel::l1) return abs(d);
    if (pixel == Pixel::mse) return d * d;
    return sqrt(fma(d, d, eps2));
}

template <class F>
QKERNEL_INLINE F pixel_gradient(F d, Pixel pixel, F eps2, F scale) {
    const F zero(0);
    // What is neither more nor less than 0 is 0 or NaN, and so is its derivative.
    if (pixel == Pixel::l1) return select(zero < d, scale, select(d < zero, zero - scale, d));
    if (pixel == Pixel::mse) return (d + d) * scale;
    return d / sqrt(fma(d, d, eps2)) * scale;
}

// What the gradient of |d| needs of 32 differences: a bit of each says whether it is above 0, and one whether below. NaN
// is both.
template <int L>
struct Signs {
    using F = Lanes<float, L>;
    using U = Lanes<std::uint32_t, L>;

    U above = U(0u), below = U(0u);

    QKERNEL_INLINE void put(int i, const F& d) {
        const U bit(1u << i);
        above = select(d <= F(0.0f), above, above | bit);
        below = select(F(0.0f) <= d, below, below | bit);
    }
    // Those from number i on.
    QKERNEL_INLINE Signs from(int i) const {
        Signs signs;
        signs.above = above >> i;
        signs.below = below >> i;
        return signs;
    }
    // As pixel_gradient.
    QKERNEL_INLINE F gradient(int i, const F& scale) const {
        const F zero(0.0f), nan(from_bits(0x7fffffffu));
        const U bit(1u << i), none(0u);
        const auto is_above = !((above & bit) == none), is_below = !((below & bit) == none);
        return select(is_above, select(is_below, nan, scale), select(is_below, zero - scale, zero));
    }
};

template <Pixel PIXEL>
struct PixelTag {
    static constexpr Pixel value = PIXEL;
};

// FUNCTION of the pixel term as a tag: one decision for all the pixels in it.
template <class Function>
QKERNEL_INLINE void decided(Pixel pixel, Function function) {
    switch (pixel) {
        case Pixel::l1: return function(PixelTag<Pixel::l1>{});
        case Pixel::mse: return function(PixelTag<Pixel::mse>{});
        default: return function(PixelTag<Pixel::charbonnier>{});
    }
}

template <class S>
struct Luma {
    // Of channel c, where an image of one channel is its own luma.
    static QKERNEL_INLINE S of(std::int64_t channels, std::int64_t c) {
        return channels == 1 ? S(1) : c == 0 ? S(0.299) : c == 1 ? S(0.587) : S(0.114);
    }
};

}  // namespace qkernel::cuda

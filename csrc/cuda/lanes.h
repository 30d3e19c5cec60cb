// A value in each of the 32 lanes of a warp.
//
// On the GPU a thread holds one lane (L = 1) and lanes exchange values by shuffles; on the CPU one thread holds all 32
// (L = 32), so that the tests run the very same kernels without a GPU. Every operation rounds by itself: a product and
// a sum are fused only where fma() says so. That makes the decision whether a patch counts the same, bit for bit, in
// the forward and the backward kernel, whatever surrounds it, and the CPU's result the GPU's, but for the last digit of
// a reciprocal or root in a hundred thousand.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "job.h"

namespace qkernel::cuda {

#if defined(__CUDA_ARCH__)
QKERNEL_INLINE float add(float a, float b) { return __fadd_rn(a, b); }
QKERNEL_INLINE float subtract(float a, float b) { return __fsub_rn(a, b); }
QKERNEL_INLINE float multiply(float a, float b) { return __fmul_rn(a, b); }
QKERNEL_INLINE float divide(float a, float b) { return __fdiv_rn(a, b); }
QKERNEL_INLINE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
QKERNEL_INLINE float square_root(float a) { return __fsqrt_rn(a); }
QKERNEL_INLINE float magnitude(float a) { return fabsf(a); }
QKERNEL_INLINE double add(double a, double b) { return __dadd_rn(a, b); }
QKERNEL_INLINE double subtract(double a, double b) { return __dsub_rn(a, b); }
QKERNEL_INLINE double multiply(double a, double b) { return __dmul_rn(a, b); }
QKERNEL_INLINE double divide(double a, double b) { return __ddiv_rn(a, b); }
QKERNEL_INLINE double multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }
QKERNEL_INLINE double square_root(double a) { return __dsqrt_rn(a); }
QKERNEL_INLINE double magnitude(double a) { return fabs(a); }

// As the compiler's, but for the branches to where it looks after what does not occur (patch.h): an approximation, and
// a step that makes up for its error. Whatever that is, of 2^23 numbers no more than some thirty are rounded otherwise.
QKERNEL_INLINE float reciprocal(float a) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a));
    return multiply_add(r, multiply_add(-a, r, 1.0f), r);
}
QKERNEL_INLINE float root(float a) {
    float r;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(r) : "f"(a));
    const float s = multiply(a, r);
    return a == 0.0f ? a : multiply_add(multiply_add(-s, s, a), multiply(0.5f, r), s);
}
QKERNEL_INLINE double reciprocal(double a) { return divide(1.0, a); }
QKERNEL_INLINE double root(double a) { return square_root(a); }
#else  // compiled with -ffp-contract=off
template <class S>
QKERNEL_INLINE S multiply_add(S a, S b, S c) { return std::fma(a, b, c); }
template <class S>
QKERNEL_INLINE S square_root(S a) { return std::sqrt(a); }
template <class S>
QKERNEL_INLINE S magnitude(S a) { return std::fabs(a); }
template <class S>
QKERNEL_INLINE S add(S a, S b) { return a + b; }
template <class S>
QKERNEL_INLINE S subtract(S a, S b) { return a - b; }
template <class S>
QKERNEL_INLINE S multiply(S a, S b) { return a * b; }
template <class S>
QKERNEL_INLINE S divide(S a, S b) { return a / b; }
template <class S>
QKERNEL_INLINE S reciprocal(S a) { return S(1) / a; }
template <class S>
QKERNEL_INLINE S root(S a) { return std::sqrt(a); }
#endif

QKERNEL_INLINE std::int64_t add(std::int64_t a, std::int64_t b) { return a + b; }
QKERNEL_INLINE std::int64_t multiply(std::int64_t a, std::int64_t b) { return a * b; }
QKERNEL_INLINE std::uint32_t add(std::uint32_t a, std::uint32_t b) { return a + b; }
QKERNEL_INLINE std::uint32_t subtract(std::uint32_t a, std::uint32_t b) { return a - b; }
QKERNEL_INLINE std::uint32_t multiply(std::uint32_t a, std::uint32_t b) { return a * b; }
QKERNEL_INLINE std::uint32_t divide(std::uint32_t a, std::uint32_t b) { return a / b; }

template <class S, int L>
struct Lanes {
    using Mask = Lanes<bool, L>;
    S v[L];

    Lanes() = default;
    QKERNEL_INLINE explicit Lanes(S s) {
        for (int i = 0; i < L; ++i) v[i] = s;
    }

    // One function of each lane's values.
    template <class R, class Function>
    static QKERNEL_INLINE Lanes<R, L> each(Function function) {
        Lanes<R, L> result;
#pragma unroll
        for (int i = 0; i < L; ++i) result.v[i] = function(i);
        return result;
    }
    template <class R>
    QKERNEL_INLINE Lanes<R, L> as() const {
        return each<R>([&](int i) { return static_cast<R>(v[i]); });
    }

    friend QKERNEL_INLINE Lanes operator+(const Lanes& a, const Lanes& b) {
        return each<S>([&](int i) { return add(a.v[i], b.v[i]); });
    }
    friend QKERNEL_INLINE Lanes operator-(const Lanes& a, const Lanes& b) {
        return each<S>([&](int i) { return subtract(a.v[i], b.v[i]); });
    }
    friend QKERNEL_INLINE Lanes operator*(const Lanes& a, const Lanes& b) {
        return each<S>([&](int i) { return multiply(a.v[i], b.v[i]); });
    }
    friend QKERNEL_INLINE Lanes operator/(const Lanes& a, const Lanes& b) {
        return each<S>([&](int i) { return divide(a.v[i], b.v[i]); });
    }
    friend QKERNEL_INLINE Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
        return each<S>([&](int i) { return multiply_add(a.v[i], b.v[i], c.v[i]); });
    }
    friend QKERNEL_INLINE Lanes sqrt(const Lanes& a) {
        return each<S>([&](int i) { return square_root(a.v[i]); });
    }
    friend QKERNEL_INLINE Lanes reciprocal(const Lanes& a) {
        return each<S>([&](int i) { return cuda::reciprocal(a.v[i]); });
    }
    friend QKERNEL_INLINE Lanes root(const Lanes& a) {
        return each<S>([&](int i) { return cuda::root(a.v[i]); });
    }
    friend QKERNEL_INLINE Lanes abs(const Lanes& a) {
        return each<S>([&](int i) { return magnitude(a.v[i]); });
    }
    friend QKERNEL_INLINE Lanes select(const Mask& mask, const Lanes& a, const Lanes& b) {
        return each<S>([&](int i) { return mask.v[i] ? a.v[i] : b.v[i]; });
    }
    friend QKERNEL_INLINE Mask operator==(const Lanes& a, const Lanes& b) {
        return each<bool>([&](int i) { return a.v[i] == b.v[i]; });
    }
    friend QKERNEL_INLINE Mask operator<=(const Lanes& a, const Lanes& b) {
        return each<bool>([&](int i) { return a.v[i] <= b.v[i]; });
    }
    friend QKERNEL_INLINE Mask operator<(const Lanes& a, const Lanes& b) {
        return each<bool>([&](int i) { return a.v[i] < b.v[i]; });
    }
    friend QKERNEL_INLINE Lanes operator|(const Lanes& a, const Lanes& b) {
        return each<S>([&](int i) -> S { return a.v[i] | b.v[i]; });
    }
    friend QKERNEL_INLINE Lanes operator&(const Lanes& a, const Lanes& b) {
        return each<S>([&](int i) -> S { return a.v[i] & b.v[i]; });
    }
    friend QKERNEL_INLINE Lanes operator<<(const Lanes& a, int by) {
        return each<S>([&](int i) -> S { return a.v[i] << by; });
    }
    friend QKERNEL_INLINE Lanes operator>>(const Lanes& a, int by) {
        return each<S>([&](int i) -> S { return a.v[i] >> by; });
    }
    friend QKERNEL_INLINE Lanes operator!(const Lanes& a) {
        return each<S>([&](int i) -> S { return !a.v[i]; });
    }
};

template <int L>
QKERNEL_INLINE Lanes<std::uint32_t, L> divide_by(const Divisor& d, const Lanes<std::uint32_t, L>& a) {
    return Lanes<std::uint32_t, L>::template each<std::uint32_t>(
        [&](int i) { return static_cast<std::uint32_t>(std::uint64_t(a.v[i]) * d.multiplier >> d.shift); });
}

// 0 .. 31
template <int L>
QKERNEL_INLINE Lanes<std::uint32_t, L> lane_ids() {
#if defined(__CUDA_ARCH__)
    return Lanes<std::uint32_t, L>(threadIdx.x & 31u);
#else
    return Lanes<std::uint32_t, L>::template each<std::uint32_t>([](int i) { return static_cast<std::uint32_t>(i); });
#endif
}

// The value of the lane whose number differs in the bits of `mask`.
template <class S, int L>
QKERNEL_INLINE Lanes<S, L> exchange(const Lanes<S, L>& a, int mask) {
#if defined(__CUDA_ARCH__)
    return Lanes<S, L>(__shfl_xor_sync(0xffffffffu, a.v[0], mask));
#else
    return Lanes<S, L>::template each<S>([&](int i) { return a.v[i ^ mask]; });
#endif
}

// The value of the lane `by` further, around the end.
template <class S, int L>
QKERNEL_INLINE Lanes<S, L> neighbour(const Lanes<S, L>& a, int by) {
#if defined(__CUDA_ARCH__)
    return Lanes<S, L>(__shfl_sync(0xffffffffu, a.v[0], static_cast<int>(threadIdx.x) + by));
#else
    return Lanes<S, L>::template each<S>([&](int i) { return a.v[(i + by + L) % L]; });
#endif
}

// Whether it holds in a lane.
template <int L>
QKERNEL_INLINE bool any(const Lanes<bool, L>& a) {
#if defined(__CUDA_ARCH__)
    return __any_sync(0xffffffffu, a.v[0]);
#else
    bool found = false;
    for (int i = 0; i < L; ++i) found |= a.v[i];
    return found;
#endif
}

// The sum over the warp, in each lane, always in the same order.
template <class S, int L>
QKERNEL_INLINE Lanes<S, L> warp_sum(Lanes<S, L> a) {
#pragma unroll
    for (int mask = 16; mask; mask /= 2) a = a + exchange(a, mask);
    return a;
}

// What the lanes have written to shared memory becomes visible to the others.
QKERNEL_INLINE void warp_barrier() {
#if defined(__CUDA_ARCH__)
    __syncwarp();
#endif
}

// Makes the compiler forget where a value came from. Without it the differences of all pixels, used a second time after
// the sums, would be kept in 128 registers instead of being taken again from the pixels' 64.
template <int L>
QKERNEL_INLINE void forget([[maybe_unused]] Lanes<float, L>& a) {
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+f"(a.v[0]));
#endif
}

template <int L>
QKERNEL_INLINE void forget([[maybe_unused]] Lanes<std::uint32_t, L>& a) {
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+r"(a.v[0]));
#endif
}
template <int L>
QKERNEL_INLINE void forget([[maybe_unused]] Lanes<std::int64_t, L>& a) {
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+l"(a.v[0]));
#endif
}

// In a kernel that is launched before the last one has ended: waits until it has, and what it wrote can be read.
// Named is what is to be worked out meanwhile.
template <class... Values>
QKERNEL_INLINE void wait_for_the_kernel_before(Values&... meanwhile) {
    (forget(meanwhile), ...);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Written by one lane.
template <class S, int L>
QKERNEL_INLINE void store_once(S* to, const Lanes<S, L>& value) {
#if defined(__CUDA_ARCH__)
    if ((threadIdx.x & 31u) == 0) *to = value.v[0];
#else
    *to = value.v[0];
#endif
}

template <class S, int L>
QKERNEL_INLINE Lanes<S, L> gather(const S* from, const Lanes<std::uint32_t, L>& at) {
    return Lanes<S, L>::template each<S>([&](int i) { return from[at.v[i]]; });
}

template <class S, int L>
QKERNEL_INLINE void scatter(S* to, const Lanes<std::uint32_t, L>& at, const Lanes<S, L>& value) {
#pragma unroll
    for (int i = 0; i < L; ++i) to[at.v[i]] = value.v[i];
}

// Of the lanes in `mask`.
template <class S, int L>
QKERNEL_INLINE void store_where(const Lanes<bool, L>& mask, S* to, const Lanes<std::uint32_t, L>& at,
                                const Lanes<S, L>& value) {
#pragma unroll
    for (int i = 0; i < L; ++i)
        if (mask.v[i]) to[at.v[i]] = value.v[i];
}

}  // namespace qkernel::cuda

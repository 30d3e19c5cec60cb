// The mathematics of one patch, written once for every engine in C++ and CUDA C++.
//
// T holds one or many patches: float or double in a GPU thread, a SIMD vector with a patch in each lane on the CPU.
// It needs + - * /, and by overload: fma(a, b, c), sqrt(a), abs(a), a == b, a <= b, a < b with a mask as result,
// `|` and `!` of masks, and select(mask, a, b). Comparisons are ordered: false for NaN. Where division and root are
// cheaper without their rare cases, reciprocal(a) and root(a) too.
//
// Notation, with the gradients (gx, gy) summed over the patch's pixels, in units of data_range:
//   a = sum gx^2, b = sum gx gy, c = sum gy^2: the structure tensor; its eigenvalues l1 >= l2; s = sqrt(l);
//   (vx, vy): its principal direction; p1 = gx vx + gy vy, p2 = gy vx - gx vy: the gradients in that frame.
// The closed forms are those of a symmetric 2x2 matrix; Q is eqs. 2-5 of the paper.
#pragma once

// Always inlined: an out-of-line copy compiled for AVX-512 could be the one that an older CPU calls.
#if defined(__CUDACC__)
#define QKERNEL_INLINE __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define QKERNEL_INLINE __forceinline
#else
#define QKERNEL_INLINE inline __attribute__((always_inline))
#endif

// The same for a lambda, between its parameters and its body.
#if defined(__GNUC__) || defined(__clang__)
#define QKERNEL_LAMBDA_INLINE __attribute__((always_inline))
#else
#define QKERNEL_LAMBDA_INLINE
#endif

namespace qkernel {

// 1 / a and sqrt(a), rounded, of numbers for which an engine need not look after rare cases: a reciprocal's are neither
// 0 nor denormal nor infinite, and neither is the result; a root's are not infinite. Of others there may come out
// anything, if only of patches that do not count, or in which the squares overflowed and all is NaN.
template <class T>
QKERNEL_INLINE T reciprocal(T a) {
    return T(1) / a;
}
template <class T>
QKERNEL_INLINE T root(T a) {
    return sqrt(a);
}

enum class Formula : int { zhu2010 = 0, mmsp2024 = 1, pythonq = 2 };

// What the mathematics needs of a definition, in the scalar type S of the computation.
template <class S>
struct Measure {
    Formula formula;
    S threshold;      // on the coherence
    S smoothing;      // e^2, added to both eigenvalues
    S inverse_range;  // 1 / data_range, over the common factor that the caller left in its gradients
    S rank_1;         // s2 <= rank_1 * s1 is rounding noise: s2 has no direction

    static constexpr S coherence_floor = S(1e-10);  // of the published (l1 - l2) / (l1 + l2 + 1e-10)
    // A smaller trace counts as 0: the squares it sums have lost their digits, and its reciprocal is infinite.
    static constexpr S smallest_trace = sizeof(S) == 4 ? S(0x1p-120) : S(0x1p-1000);

    QKERNEL_INLINE bool of_singular_values() const { return formula != Formula::mmsp2024; }
};

template <class T>
struct Moments {
    T a, b, c;
};

// The patch's tensor in a form that does not lose the float's range: everything but the trace lies in [0, 1].
template <class T, class Mask>
struct Spectrum {
    T trace;
    T difference;  // (a - c) / trace
    T cross;       // 2 b / trace
    T anisotropy;  // d = (l1 - l2) / trace
    T l1;
    T normalise;   // 1 / (a + c): makes sums of products of the gradients shares of the trace
    Mask counted;  // not flat, and coherence above the threshold; true for NaN, which so reaches the value
};

// Decides, for value and gradient alike, whether a patch counts. `moments` are of pixels, not yet in data_range.
template <class T, class S>
QKERNEL_INLINE auto analyse(Moments<T> moments, const Measure<S>& measure)
    -> Spectrum<T, decltype(moments.a == moments.a)> {
    const T one(S(1)), sixteenth(S(0.0625));
    const T squares = moments.a + moments.c, trace = squares * T(measure.inverse_range * measure.inverse_range);
    const auto flat = (trace <= T(Measure<S>::smallest_trace)) | (squares <= T(Measure<S>::smallest_trace));
    // Of the largest numbers there are, a sixteenth has a reciprocal that is no denormal number. And what is added is 0,
    // or NaN where the squares have overflowed.
    const T normalise = reciprocal(select(flat, one, squares) * sixteenth) * sixteenth + (trace - trace);
    const T a = moments.a * normalise, b = moments.b * normalise, c = moments.c * normalise;
    const T difference = a - c, cross = b + b;
    const T d = root(fma(difference, difference, cross * cross));

    auto weak = flat;
    if (measure.formula == Formula::zhu2010) {
        // d <= threshold (1 + 2 sqrt(determinant)), without the root. The determinant cancels when l2 << l1; then
        // the coherence is near 1, far above every threshold.
        const T determinant = a * c - b * b;
        const T excess = d * T(S(0.5) / measure.threshold) - T(S(0.5));
        weak = (excess <= T(S(0))) | (excess * excess <= determinant);
    } else {
        weak = d * trace <= T(measure.threshold) * (trace + T(Measure<S>::coherence_floor));
    }
    const auto counted = !(flat | weak);
    const T half(S(0.5));
    return {trace, difference, cross, d, half * trace * (one + d), normalise, counted};
}

// l2 as the trace leaves it: the difference of two numbers near each other where a patch is nearly of rank 1. Its
// relative error is that of d, some 2^-22 in float, over 1 - d; Q's is that error over sqrt(2 (1 - d)).
template <class T, class Mask>
QKERNEL_INLINE T closed_l2(const Spectrum<T, Mask>& s) {
    const T half(0.5f), one(1.0f);
    return half * s.trace * (one - s.anisotropy);
}

// Where that is too coarse and l2 must be summed from the gradients: 1 - d < 2^-7, s2 < 0.063 s1. Elsewhere Q keeps
// 2e-6 of its digits and the gradient, which divides by s2, 2e-5.
template <class T, class Mask>
QKERNEL_INLINE Mask nearly_rank_1(const Spectrum<T, Mask>& s) {
    const T one(1.0f), enough(0x1p-7f);
    const Mask left_out = !s.counted, safe = enough <= one - s.anisotropy;
    return !(left_out | safe);
}

template <class T>
struct Direction {
    T x, y;
};

// The principal direction, along (d + |difference|, cross) or, where it is steep, the two exchanged: no cancellation.
template <class T, class Mask>
QKERNEL_INLINE Direction<T> principal_direction(const Spectrum<T, Mask>& s) {
    const T one(1), zero(0), least(0x1p-100f);
    const T large = s.anisotropy + abs(s.difference);
    const T square = (s.anisotropy + s.anisotropy) * large;  // large^2 + cross^2
    // Less than that, the anisotropy is far below rounding, and the root would not keep its digits: there is no
    // direction, and the vector is nearly 0.
    const T inverse = reciprocal(root(select(square <= least, one, square)));
    const auto steep = s.difference < zero;
    return {select(steep, s.cross, large) * inverse, select(steep, large, s.cross) * inverse};
}

// Q of the patch. l2 = sum p2^2, which keeps its digits where the determinant has lost them; mmsp2024 ignores it.
template <class T, class Mask, class S>
QKERNEL_INLINE T patch_value(const Spectrum<T, Mask>& s, T l2, const Measure<S>& measure) {
    const T smoothing(measure.smoothing), zero(S(0));
    const T gap = s.anisotropy * s.trace;
    if (!measure.of_singular_values()) {
        const T sum = s.trace + (smoothing + smoothing) + T(Measure<S>::coherence_floor);
        return select(s.counted, s.l1 * gap / sum, zero);
    }
    const T s1 = root(s.l1 + smoothing), s2 = root(l2 + smoothing);
    const T inverse = reciprocal(s1 + s2);
    // (s1 - s2) / (s1 + s2) = (l1 - l2) / (s1 + s2)^2, in an order in which nothing underflows
    return select(s.counted, (s1 * inverse) * (gap * inverse), zero);
}

// dQ/dG = along (G + ratio p2 v2'), in data ranges: the derivative by the gradients, in the eigenvectors' frame, with
// G = p1 v1' + p2 v2'. ratio is -1 where only p1 counts. Written with a 2x2 matrix applied to (gx, gy) instead, it
// would cancel in float32 (up to 6 times too large on exact ramps).
template <class T>
struct Adjoint {
    T along, ratio;
};

template <class T, class Mask, class S>
QKERNEL_INLINE Adjoint<T> patch_adjoint(const Spectrum<T, Mask>& s, T l2, const Measure<S>& measure) {
    const T smoothing(measure.smoothing), zero(S(0)), one(S(1));
    T along(S(0)), ratio(S(0));
    if (!measure.of_singular_values()) {
        const T sum = s.trace + (smoothing + smoothing) + T(Measure<S>::coherence_floor);
        const T coherence = s.anisotropy * s.trace / sum, share = s.l1 / sum;
        // dQ/dl1 = coherence + share - share coherence, dQ/dl2 = -(share + share coherence)
        const T lost = share * coherence, half = coherence + share - lost;
        along = half + half;
        ratio = zero - (share + lost) / select(half == zero, one, half) - one;
    } else {
        const T s1 = root(s.l1 + smoothing), s2 = root(l2 + smoothing);
        const T inverse = reciprocal(s1 + s2);
        const T r1 = s1 * inverse, r2 = s2 * inverse;
        const T part = r1 * r1 + (r1 + r1) * r2 - r2 * r2;  // dQ/ds1, from 1/2 to 1
        along = part * reciprocal(s1);
        // Rank 1: s2 has no direction to grow in, 0 is a subgradient. Smoothed, s2 is never small.
        const auto rank_1 = s2 <= T(measure.rank_1) * s1;
        // dQ/ds2 = -2 r1^2
        const T other = (r1 + r1) * r1 * s1 * reciprocal(select(rank_1, one, s2) * part);
        ratio = zero - select(rank_1, zero, other) - one;
    }
    return {select(s.counted, along, zero), select(s.counted, ratio, zero)};
}

// One more rotation: with m = sum p1 p2 the frame is off by m / (l1 - l2), which matters where the gradient divides
// by s2. From the sums of p2^2 and p1 p2, of gradients as analyse() has seen them; returns the l2 of the rotated frame
// and turns the direction.
template <class T, class Mask>
QKERNEL_INLINE T rotate_once_more(const Spectrum<T, Mask>& s, T squares, T mixed, Direction<T>& v) {
    const T one(1), zero(0), half(0.5f);
    // In shares of the trace: that may be so small that the gap would be a denormal number.
    const T l2 = squares * s.normalise, m = mixed * s.normalise;
    const T gap = half * (one + s.anisotropy) - l2;
    const T angle = select(s.counted, m * reciprocal(select(s.counted, gap, one)), zero);
    v = {fma(zero - angle, v.y, v.x), fma(angle, v.x, v.y)};
    const T turned = fma(zero - m, angle, l2);
    return select(turned < zero, zero, turned * s.trace);
}

}  // namespace qkernel

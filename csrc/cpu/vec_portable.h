// A vector of four or two patches in plain C++, which compilers turn into SSE2 or NEON.
// Included inside an unnamed namespace: every instruction set has its own copy of everything built on it.
#pragma once

struct PortableIsa {};

template <int L>
struct PortableMask {
    bool m[L];
    friend QKERNEL_INLINE PortableMask operator|(const PortableMask& a, const PortableMask& b) {
        PortableMask r;
        for (int i = 0; i < L; ++i) r.m[i] = a.m[i] | b.m[i];
        return r;
    }
    friend QKERNEL_INLINE PortableMask operator!(const PortableMask& a) {
        PortableMask r;
        for (int i = 0; i < L; ++i) r.m[i] = !a.m[i];
        return r;
    }
};

QKERNEL_INLINE float scalar_sqrt(float a) { return ::sqrtf(a); }
QKERNEL_INLINE double scalar_sqrt(double a) { return ::sqrt(a); }

template <class S>
struct PortableVec {
    using Scalar = S;
    static constexpr int lanes = 16 / sizeof(S);
    static constexpr int unit = 16 / sizeof(S);  // columns moved together by the transpositions
    static constexpr bool whole_rows = false;
    using Mask = PortableMask<lanes>;
    S v[lanes];

    PortableVec() = default;
    QKERNEL_INLINE explicit PortableVec(S s) {
        for (int i = 0; i < lanes; ++i) v[i] = s;
    }
    static QKERNEL_INLINE PortableVec load(const S* p) {
        PortableVec r;
        for (int i = 0; i < lanes; ++i) r.v[i] = p[i];
        return r;
    }
    QKERNEL_INLINE void store(S* p) const {
        for (int i = 0; i < lanes; ++i) p[i] = v[i];
    }
    QKERNEL_INLINE void stream(S* p) const { store(p); }  // there is no portable way past the cache
    // out[k], lane p <- src[p * stride + k]
    static QKERNEL_INLINE void gather_columns(const S* src, std::ptrdiff_t stride, PortableVec* out) {
        for (int k = 0; k < unit; ++k)
            for (int p = 0; p < lanes; ++p) out[k].v[p] = src[p * stride + k];
    }
    // dst[p * stride + k] <- in[k], lane p
    static QKERNEL_INLINE void scatter_columns(const PortableVec* in, S* dst, std::ptrdiff_t stride) {
        for (int p = 0; p < lanes; ++p)
            for (int k = 0; k < unit; ++k) dst[p * stride + k] = in[k].v[p];
    }
    QKERNEL_INLINE void add_to(double* sums) const {
        for (int i = 0; i < lanes; ++i) sums[i] += v[i];
    }

#define QKERNEL_PORTABLE(result, name, expression)                                        \
    friend QKERNEL_INLINE result name(const PortableVec& a, const PortableVec& b) {       \
        result r;                                                                         \
        for (int i = 0; i < lanes; ++i) expression;                                       \
        return r;                                                                         \
    }
    QKERNEL_PORTABLE(PortableVec, operator+, r.v[i] = a.v[i] + b.v[i])
    QKERNEL_PORTABLE(PortableVec, operator-, r.v[i] = a.v[i] - b.v[i])
    QKERNEL_PORTABLE(PortableVec, operator*, r.v[i] = a.v[i] * b.v[i])
    QKERNEL_PORTABLE(PortableVec, operator/, r.v[i] = a.v[i] / b.v[i])
    QKERNEL_PORTABLE(Mask, operator==, r.m[i] = a.v[i] == b.v[i])
    QKERNEL_PORTABLE(Mask, operator<=, r.m[i] = a.v[i] <= b.v[i])
    QKERNEL_PORTABLE(Mask, operator<, r.m[i] = a.v[i] < b.v[i])
#undef QKERNEL_PORTABLE

    friend QKERNEL_INLINE PortableVec fma(const PortableVec& a, const PortableVec& b, const PortableVec& c) {
        PortableVec r;
        for (int i = 0; i < lanes; ++i) {
#ifdef __FP_FAST_FMAF  // a single instruction here, as on every ARM64
            r.v[i] = sizeof(S) == 4 ? S(__builtin_fmaf(float(a.v[i]), float(b.v[i]), float(c.v[i])))
                                    : S(__builtin_fma(a.v[i], b.v[i], c.v[i]));
#else
            r.v[i] = a.v[i] * b.v[i] + c.v[i];
#endif
        }
        return r;
    }
    friend QKERNEL_INLINE PortableVec sqrt(const PortableVec& a) {
        PortableVec r;
        for (int i = 0; i < lanes; ++i) r.v[i] = scalar_sqrt(a.v[i]);
        return r;
    }
    friend QKERNEL_INLINE PortableVec abs(const PortableVec& a) {
        PortableVec r;
        for (int i = 0; i < lanes; ++i) r.v[i] = a.v[i] < 0 ? -a.v[i] : a.v[i];
        return r;
    }
    friend QKERNEL_INLINE PortableVec select(const Mask& m, const PortableVec& a, const PortableVec& b) {
        PortableVec r;
        for (int i = 0; i < lanes; ++i) r.v[i] = m.m[i] ? a.v[i] : b.v[i];
        return r;
    }
    static QKERNEL_INLINE bool any(const Mask& m) {
        bool r = false;
        for (int i = 0; i < lanes; ++i) r |= m.m[i];
        return r;
    }
};

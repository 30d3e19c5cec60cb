// Vectors of eight floats or four doubles with AVX2, FMA and F16C. Included inside an unnamed namespace.
#pragma once

struct Avx2Float {
    using Scalar = float;
    static constexpr int lanes = 8, unit = 4;
    static constexpr bool whole_rows = false;
    struct Mask {
        __m256 m;
        friend QKERNEL_INLINE Mask operator|(Mask a, Mask b) { return {_mm256_or_ps(a.m, b.m)}; }
        friend QKERNEL_INLINE Mask operator!(Mask a) {
            return {_mm256_xor_ps(a.m, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))};
        }
    };
    __m256 v;

    Avx2Float() = default;
    QKERNEL_INLINE Avx2Float(__m256 x) : v(x) {}
    QKERNEL_INLINE explicit Avx2Float(float s) : v(_mm256_set1_ps(s)) {}
    static QKERNEL_INLINE Avx2Float load(const float* p) { return _mm256_loadu_ps(p); }
    QKERNEL_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
    QKERNEL_INLINE void stream(float* p) const { _mm256_stream_ps(p, v); }
    QKERNEL_INLINE void add_to(double* sums) const {
        const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
        const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
        _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_loadu_pd(sums), low));
        _mm256_storeu_pd(sums + 4, _mm256_add_pd(_mm256_loadu_pd(sums + 4), high));
    }
    static QKERNEL_INLINE void transpose(__m256 r0, __m256 r1, __m256 r2, __m256 r3, Avx2Float* out) {
        const __m256d t0 = _mm256_castps_pd(_mm256_unpacklo_ps(r0, r1));
        const __m256d t1 = _mm256_castps_pd(_mm256_unpackhi_ps(r0, r1));
        const __m256d t2 = _mm256_castps_pd(_mm256_unpacklo_ps(r2, r3));
        const __m256d t3 = _mm256_castps_pd(_mm256_unpackhi_ps(r2, r3));
        out[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(t0, t2));
        out[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(t0, t2));
        out[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(t1, t3));
        out[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(t1, t3));
    }
    // out[k], lane p <- src[p * stride + k]: 128-bit halves are put side by side on the load ports, then 4 x 4.
    static QKERNEL_INLINE void gather_columns(const float* src, std::ptrdiff_t stride, Avx2Float* out) {
        __m256 r[4];
        for (int i = 0; i < 4; ++i)
            r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(src + i * stride)),
                                        _mm_loadu_ps(src + (i + 4) * stride), 1);
        transpose(r[0], r[1], r[2], r[3], out);
    }
    static QKERNEL_INLINE void scatter_columns(const Avx2Float* in, float* dst, std::ptrdiff_t stride) {
        Avx2Float r[4];
        transpose(in[0].v, in[1].v, in[2].v, in[3].v, r);
        for (int i = 0; i < 4; ++i) {
            _mm_storeu_ps(dst + i * stride, _mm256_castps256_ps128(r[i].v));
            _mm_storeu_ps(dst + (i + 4) * stride, _mm256_extractf128_ps(r[i].v, 1));
        }
    }

    friend QKERNEL_INLINE Avx2Float operator+(Avx2Float a, Avx2Float b) { return _mm256_add_ps(a.v, b.v); }
    friend QKERNEL_INLINE Avx2Float operator-(Avx2Float a, Avx2Float b) { return _mm256_sub_ps(a.v, b.v); }
    friend QKERNEL_INLINE Avx2Float operator*(Avx2Float a, Avx2Float b) { return _mm256_mul_ps(a.v, b.v); }
    friend QKERNEL_INLINE Avx2Float operator/(Avx2Float a, Avx2Float b) { return _mm256_div_ps(a.v, b.v); }
    friend QKERNEL_INLINE Mask operator==(Avx2Float a, Avx2Float b) {
        return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)};
    }
    friend QKERNEL_INLINE Mask operator<=(Avx2Float a, Avx2Float b) {
        return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)};
    }
    friend QKERNEL_INLINE Mask operator<(Avx2Float a, Avx2Float b) {
        return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)};
    }
    friend QKERNEL_INLINE Avx2Float fma(Avx2Float a, Avx2Float b, Avx2Float c) {
        return _mm256_fmadd_ps(a.v, b.v, c.v);
    }
    friend QKERNEL_INLINE Avx2Float sqrt(Avx2Float a) { return _mm256_sqrt_ps(a.v); }
    friend QKERNEL_INLINE Avx2Float abs(Avx2Float a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v); }
    friend QKERNEL_INLINE Avx2Float select(Mask m, Avx2Float a, Avx2Float b) {
        return _mm256_blendv_ps(b.v, a.v, m.m);
    }
    static QKERNEL_INLINE bool any(Mask m) { return _mm256_movemask_ps(m.m) != 0; }
};

struct Avx2Double {
    using Scalar = double;
    static constexpr int lanes = 4, unit = 2;
    static constexpr bool whole_rows = false;
    struct Mask {
        __m256d m;
        friend QKERNEL_INLINE Mask operator|(Mask a, Mask b) { return {_mm256_or_pd(a.m, b.m)}; }
        friend QKERNEL_INLINE Mask operator!(Mask a) {
            return {_mm256_xor_pd(a.m, _mm256_castsi256_pd(_mm256_set1_epi32(-1)))};
        }
    };
    __m256d v;

    Avx2Double() = default;
    QKERNEL_INLINE Avx2Double(__m256d x) : v(x) {}
    QKERNEL_INLINE explicit Avx2Double(double s) : v(_mm256_set1_pd(s)) {}
    static QKERNEL_INLINE Avx2Double load(const double* p) { return _mm256_loadu_pd(p); }
    QKERNEL_INLINE void store(double* p) const { _mm256_storeu_pd(p, v); }
    QKERNEL_INLINE void stream(double* p) const { _mm256_stream_pd(p, v); }
    QKERNEL_INLINE void add_to(double* sums) const {
        _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_loadu_pd(sums), v));
    }
    static QKERNEL_INLINE void gather_columns(const double* src, std::ptrdiff_t stride, Avx2Double* out) {
        __m256d r[2];
        for (int i = 0; i < 2; ++i)
            r[i] = _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(src + i * stride)),
                                        _mm_loadu_pd(src + (i + 2) * stride), 1);
        out[0] = _mm256_unpacklo_pd(r[0], r[1]);
        out[1] = _mm256_unpackhi_pd(r[0], r[1]);
    }
    static QKERNEL_INLINE void scatter_columns(const Avx2Double* in, double* dst, std::ptrdiff_t stride) {
        const __m256d r[2] = {_mm256_unpacklo_pd(in[0].v, in[1].v), _mm256_unpackhi_pd(in[0].v, in[1].v)};
        for (int i = 0; i < 2; ++i) {
            _mm_storeu_pd(dst + i * stride, _mm256_castpd256_pd128(r[i]));
            _mm_storeu_pd(dst + (i + 2) * stride, _mm256_extractf128_pd(r[i], 1));
        }
    }

    friend QKERNEL_INLINE Avx2Double operator+(Avx2Double a, Avx2Double b) { return _mm256_add_pd(a.v, b.v); }
    friend QKERNEL_INLINE Avx2Double operator-(Avx2Double a, Avx2Double b) { return _mm256_sub_pd(a.v, b.v); }
    friend QKERNEL_INLINE Avx2Double operator*(Avx2Double a, Avx2Double b) { return _mm256_mul_pd(a.v, b.v); }
    friend QKERNEL_INLINE Avx2Double operator/(Avx2Double a, Avx2Double b) { return _mm256_div_pd(a.v, b.v); }
    friend QKERNEL_INLINE Mask operator==(Avx2Double a, Avx2Double b) {
        return {_mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ)};
    }
    friend QKERNEL_INLINE Mask operator<=(Avx2Double a, Avx2Double b) {
        return {_mm256_cmp_pd(a.v, b.v, _CMP_LE_OQ)};
    }
    friend QKERNEL_INLINE Mask operator<(Avx2Double a, Avx2Double b) {
        return {_mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ)};
    }
    friend QKERNEL_INLINE Avx2Double fma(Avx2Double a, Avx2Double b, Avx2Double c) {
        return _mm256_fmadd_pd(a.v, b.v, c.v);
    }
    friend QKERNEL_INLINE Avx2Double sqrt(Avx2Double a) { return _mm256_sqrt_pd(a.v); }
    friend QKERNEL_INLINE Avx2Double abs(Avx2Double a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a.v); }
    friend QKERNEL_INLINE Avx2Double select(Mask m, Avx2Double a, Avx2Double b) {
        return _mm256_blendv_pd(b.v, a.v, m.m);
    }
    static QKERNEL_INLINE bool any(Mask m) { return _mm256_movemask_pd(m.m) != 0; }
};

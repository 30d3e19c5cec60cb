// Vectors of sixteen floats or eight doubles with AVX-512 F, BW, DQ and VL. Included inside an unnamed namespace.
#pragma once

struct Avx512Float {
    using Scalar = float;
    static constexpr int lanes = 16, unit = 4;
    struct Mask {
        __mmask16 m;
        friend QKERNEL_INLINE Mask operator|(Mask a, Mask b) { return {_kor_mask16(a.m, b.m)}; }
        friend QKERNEL_INLINE Mask operator!(Mask a) { return {_knot_mask16(a.m)}; }
    };
    __m512 v;

    Avx512Float() = default;
    QKERNEL_INLINE Avx512Float(__m512 x) : v(x) {}
    QKERNEL_INLINE explicit Avx512Float(float s) : v(_mm512_set1_ps(s)) {}
    static QKERNEL_INLINE Avx512Float load(const float* p) { return _mm512_loadu_ps(p); }
    QKERNEL_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
    QKERNEL_INLINE void stream(float* p) const { _mm512_stream_ps(p, v); }
    QKERNEL_INLINE void add_to(double* sums) const {
        const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
        const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
        _mm512_storeu_pd(sums, _mm512_add_pd(_mm512_loadu_pd(sums), low));
        _mm512_storeu_pd(sums + 8, _mm512_add_pd(_mm512_loadu_pd(sums + 8), high));
    }
    static QKERNEL_INLINE void transpose(__m512 r0, __m512 r1, __m512 r2, __m512 r3, Avx512Float* out) {
        const __m512d t0 = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1));
        const __m512d t1 = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1));
        const __m512d t2 = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3));
        const __m512d t3 = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
        out[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(t0, t2));
        out[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(t0, t2));
        out[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(t1, t3));
        out[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(t1, t3));
    }
    // out[k], lane p <- src[p * stride + k]
    static QKERNEL_INLINE void gather_columns(const float* src, std::ptrdiff_t stride, Avx512Float* out) {
        __m512 r[4];
        for (int i = 0; i < 4; ++i) {
            r[i] = _mm512_castps128_ps512(_mm_loadu_ps(src + i * stride));
            r[i] = _mm512_insertf32x4(r[i], _mm_loadu_ps(src + (i + 4) * stride), 1);
            r[i] = _mm512_insertf32x4(r[i], _mm_loadu_ps(src + (i + 8) * stride), 2);
            r[i] = _mm512_insertf32x4(r[i], _mm_loadu_ps(src + (i + 12) * stride), 3);
        }
        transpose(r[0], r[1], r[2], r[3], out);
    }
    static QKERNEL_INLINE void scatter_columns(const Avx512Float* in, float* dst, std::ptrdiff_t stride) {
        Avx512Float r[4];
        transpose(in[0].v, in[1].v, in[2].v, in[3].v, r);
        for (int i = 0; i < 4; ++i) {
            _mm_storeu_ps(dst + i * stride, _mm512_castps512_ps128(r[i].v));
            _mm_storeu_ps(dst + (i + 4) * stride, _mm512_extractf32x4_ps(r[i].v, 1));
            _mm_storeu_ps(dst + (i + 8) * stride, _mm512_extractf32x4_ps(r[i].v, 2));
            _mm_storeu_ps(dst + (i + 12) * stride, _mm512_extractf32x4_ps(r[i].v, 3));
        }
    }

    // The same for 16 adjoining patches of 8 columns, all at once: whole cache lines, and one shuffle to part the
    // left and right halves of the patches in place of three insertions. Lanes hold the patches in another order.
    static constexpr bool whole_rows = true;
    static QKERNEL_INLINE void gather_row(const float* src, Avx512Float* out) {
        __m512 row[8], left[4], right[4];
        for (int i = 0; i < 8; ++i) row[i] = _mm512_loadu_ps(src + 16 * i);
        for (int i = 0; i < 4; ++i) {
            left[i] = _mm512_shuffle_f32x4(row[i], row[i + 4], 0x88);
            right[i] = _mm512_shuffle_f32x4(row[i], row[i + 4], 0xdd);
        }
        transpose(left[0], left[1], left[2], left[3], out);
        transpose(right[0], right[1], right[2], right[3], out + 4);
    }
    static QKERNEL_INLINE void scatter_row(const Avx512Float* in, float* dst, bool past_cache) {
        const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        const __m512i high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        Avx512Float left[4], right[4], line[8];
        transpose(in[0].v, in[1].v, in[2].v, in[3].v, left);
        transpose(in[4].v, in[5].v, in[6].v, in[7].v, right);
        for (int i = 0; i < 4; ++i) {
            const __m512d a = _mm512_castps_pd(left[i].v), b = _mm512_castps_pd(right[i].v);
            line[i].v = _mm512_castpd_ps(_mm512_permutex2var_pd(a, low, b));
            line[i + 4].v = _mm512_castpd_ps(_mm512_permutex2var_pd(a, high, b));
        }
        if (past_cache)
            for (int i = 0; i < 8; ++i) line[i].stream(dst + 16 * i);
        else
            for (int i = 0; i < 8; ++i) line[i].store(dst + 16 * i);
    }

    friend QKERNEL_INLINE Avx512Float operator+(Avx512Float a, Avx512Float b) { return _mm512_add_ps(a.v, b.v); }
    friend QKERNEL_INLINE Avx512Float operator-(Avx512Float a, Avx512Float b) { return _mm512_sub_ps(a.v, b.v); }
    friend QKERNEL_INLINE Avx512Float operator*(Avx512Float a, Avx512Float b) { return _mm512_mul_ps(a.v, b.v); }
    friend QKERNEL_INLINE Avx512Float operator/(Avx512Float a, Avx512Float b) { return _mm512_div_ps(a.v, b.v); }
    friend QKERNEL_INLINE Mask operator==(Avx512Float a, Avx512Float b) {
        return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)};
    }
    friend QKERNEL_INLINE Mask operator<=(Avx512Float a, Avx512Float b) {
        return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)};
    }
    friend QKERNEL_INLINE Mask operator<(Avx512Float a, Avx512Float b) {
        return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)};
    }
    friend QKERNEL_INLINE Avx512Float fma(Avx512Float a, Avx512Float b, Avx512Float c) {
        return _mm512_fmadd_ps(a.v, b.v, c.v);
    }
    friend QKERNEL_INLINE Avx512Float sqrt(Avx512Float a) { return _mm512_sqrt_ps(a.v); }
    friend QKERNEL_INLINE Avx512Float abs(Avx512Float a) { return _mm512_abs_ps(a.v); }
    friend QKERNEL_INLINE Avx512Float select(Mask m, Avx512Float a, Avx512Float b) {
        return _mm512_mask_blend_ps(m.m, b.v, a.v);
    }
    static QKERNEL_INLINE bool any(Mask m) { return m.m != 0; }
};

struct Avx512Double {
    using Scalar = double;
    static constexpr int lanes = 8, unit = 2;
    static constexpr bool whole_rows = false;
    struct Mask {
        __mmask8 m;
        friend QKERNEL_INLINE Mask operator|(Mask a, Mask b) { return {_kor_mask8(a.m, b.m)}; }
        friend QKERNEL_INLINE Mask operator!(Mask a) { return {_knot_mask8(a.m)}; }
    };
    __m512d v;

    Avx512Double() = default;
    QKERNEL_INLINE Avx512Double(__m512d x) : v(x) {}
    QKERNEL_INLINE explicit Avx512Double(double s) : v(_mm512_set1_pd(s)) {}
    static QKERNEL_INLINE Avx512Double load(const double* p) { return _mm512_loadu_pd(p); }
    QKERNEL_INLINE void store(double* p) const { _mm512_storeu_pd(p, v); }
    QKERNEL_INLINE void stream(double* p) const { _mm512_stream_pd(p, v); }
    QKERNEL_INLINE void add_to(double* sums) const {
        _mm512_storeu_pd(sums, _mm512_add_pd(_mm512_loadu_pd(sums), v));
    }
    static QKERNEL_INLINE void gather_columns(const double* src, std::ptrdiff_t stride, Avx512Double* out) {
        __m512d r[2];
        for (int i = 0; i < 2; ++i) {
            r[i] = _mm512_castpd128_pd512(_mm_loadu_pd(src + i * stride));
            r[i] = _mm512_insertf64x2(r[i], _mm_loadu_pd(src + (i + 2) * stride), 1);
            r[i] = _mm512_insertf64x2(r[i], _mm_loadu_pd(src + (i + 4) * stride), 2);
            r[i] = _mm512_insertf64x2(r[i], _mm_loadu_pd(src + (i + 6) * stride), 3);
        }
        out[0] = _mm512_unpacklo_pd(r[0], r[1]);
        out[1] = _mm512_unpackhi_pd(r[0], r[1]);
    }
    static QKERNEL_INLINE void scatter_columns(const Avx512Double* in, double* dst, std::ptrdiff_t stride) {
        const __m512d r[2] = {_mm512_unpacklo_pd(in[0].v, in[1].v), _mm512_unpackhi_pd(in[0].v, in[1].v)};
        for (int i = 0; i < 2; ++i) {
            _mm_storeu_pd(dst + i * stride, _mm512_castpd512_pd128(r[i]));
            _mm_storeu_pd(dst + (i + 2) * stride, _mm512_extractf64x2_pd(r[i], 1));
            _mm_storeu_pd(dst + (i + 4) * stride, _mm512_extractf64x2_pd(r[i], 2));
            _mm_storeu_pd(dst + (i + 6) * stride, _mm512_extractf64x2_pd(r[i], 3));
        }
    }

    friend QKERNEL_INLINE Avx512Double operator+(Avx512Double a, Avx512Double b) { return _mm512_add_pd(a.v, b.v); }
    friend QKERNEL_INLINE Avx512Double operator-(Avx512Double a, Avx512Double b) { return _mm512_sub_pd(a.v, b.v); }
    friend QKERNEL_INLINE Avx512Double operator*(Avx512Double a, Avx512Double b) { return _mm512_mul_pd(a.v, b.v); }
    friend QKERNEL_INLINE Avx512Double operator/(Avx512Double a, Avx512Double b) { return _mm512_div_pd(a.v, b.v); }
    friend QKERNEL_INLINE Mask operator==(Avx512Double a, Avx512Double b) {
        return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ)};
    }
    friend QKERNEL_INLINE Mask operator<=(Avx512Double a, Avx512Double b) {
        return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LE_OQ)};
    }
    friend QKERNEL_INLINE Mask operator<(Avx512Double a, Avx512Double b) {
        return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ)};
    }
    friend QKERNEL_INLINE Avx512Double fma(Avx512Double a, Avx512Double b, Avx512Double c) {
        return _mm512_fmadd_pd(a.v, b.v, c.v);
    }
    friend QKERNEL_INLINE Avx512Double sqrt(Avx512Double a) { return _mm512_sqrt_pd(a.v); }
    friend QKERNEL_INLINE Avx512Double abs(Avx512Double a) { return _mm512_abs_pd(a.v); }
    friend QKERNEL_INLINE Avx512Double select(Mask m, Avx512Double a, Avx512Double b) {
        return _mm512_mask_blend_pd(m.m, b.v, a.v);
    }
    static QKERNEL_INLINE bool any(Mask m) { return m.m != 0; }
};

// One row of patches: the kernel of the CPU engine. Included inside an unnamed namespace.
//
// Every lane of a vector holds one patch, so that all arithmetic is vertical; only loading and storing moves data
// between lanes, in 4 x 4 (float) or 2 x 2 (double) transpositions. One pass: a group of patches is loaded, its
// gradients stay in the first-level cache for the second sum and the adjoint, and what is finished is stored.
#pragma once

template <class V, int NC, bool SOBEL, bool BACKWARD>
class StripRun : PixelRun<V> {
    using Base = PixelRun<V>;
    using typename Base::S;
    using Base::L, Base::job, Base::image, Base::width, Base::runs, Base::pixel_sums;

  public:
    static std::size_t scratch_bytes(int n) {
        return (3 * n * n + apart(n) + apart(n) / 2) * sizeof(V) + (n + buffers) * room(n) * sizeof(S);
    }

    static void run(const Job& job, std::int64_t image, std::int64_t row, void* scratch) {
        StripRun(job, image, row, scratch).strip();
    }

  private:
    using Following = Ahead<L, L * NC * int(sizeof(S))>;
    static constexpr int buffers = 5;
    // Patches go to and from memory in whole cache lines.
    static constexpr bool whole_lines = V::whole_rows && NC == 8;

    static QKERNEL_INLINE std::int64_t room(int n) { return (std::int64_t(L) * n + 31) / 16 * 16; }

    static QKERNEL_INLINE int size(const Job& job) { return NC ? NC : job.patch_size; }

    // The scratch: pixels, gx and gy of L patches, a tile of pixels, and runs. The first three are kept apart by
    // more than their size: a store that matches a following load in the low 12 bits of the address holds it up.
    static QKERNEL_INLINE int apart(int n) { return n * n / 2 / V::unit * V::unit + V::unit; }
    static QKERNEL_INLINE V* horizontal(void* scratch, int n) { return static_cast<V*>(scratch) + n * n + apart(n); }
    static QKERNEL_INLINE V* vertical(void* scratch, int n) { return horizontal(scratch, n) + n * n + apart(n) / 2; }
    static QKERNEL_INLINE S* pixels(void* scratch, int n) {
        return reinterpret_cast<S*>(vertical(scratch, n) + n * n);
    }

    StripRun(const Job& job_, std::int64_t image_, std::int64_t row_, void* scratch)
        : Base(job_, image_, room(size(job_)), pixels(scratch, size(job_)) + size(job_) * room(size(job_))),
          n(size(job_)),
          row(row_),
          x(static_cast<V*>(scratch)),
          gx(horizontal(scratch, n)),
          gy(vertical(scratch, n)),
          tile(pixels(scratch, n)) {
        const Measure<double>& m = job.measure;
        measure = {m.formula, S(m.threshold), S(m.smoothing), S(m.inverse_range / gradient_factor<SOBEL>),
                   S(4) * (sizeof(S) == 4 ? S(0x1p-23) : S(0x1p-52))};
    }

    void strip() {
        if (BACKWARD && job.q_scales[image] == 0 && job.pixel != Pixel::none) {
            // Without weight Q is left out: also its NaN.
            margin(job.first_row(row), job.last_row(row), 0, job.width);
            return;
        }
        const std::int64_t y = job.top + row * n, right = job.left + job.columns * n;
        for (std::int64_t first = 0; first < job.columns; first += L) {
            const std::int64_t left_over = job.columns - first;
            const std::int64_t count = (left_over < L ? left_over : L) * n;
            group(y, first, count);
        }
        if (BACKWARD || job.pixel != Pixel::none) {
            margin(job.first_row(row), y, 0, job.width);
            margin(y, y + n, 0, job.left);
            margin(y, y + n, right, job.width);
            margin(y + n, job.last_row(row), 0, job.width);
        }
        if (!BACKWARD) {
            double q = 0, pixels = 0;
            for (int i = 0; i < L; ++i) q += q_sums[i];
            for (int i = 0; i < L; ++i) pixels += pixel_sums[i];
            job.q_sums[image * job.rows + row] = q;
            if (job.pixel != Pixel::none) job.pixel_sums[image * job.rows + row] = pixels;
        }
    }

    // A group of up to L patches from patch `first` on: `count` columns of pixels from row y on.
    void group(std::int64_t y, std::int64_t first, std::int64_t count) {
        const std::int64_t left = job.left + first * n;
        const Following following(job, image, row, first);
        const Moments<V> moments = differentiate(y, left, count, following);
        const auto spectrum = analyse(moments, measure);
        const V scale(measure.inverse_range * measure.inverse_range), zero(0);
        if (!BACKWARD) {
            V l2 = zero;
            if (measure.of_singular_values()) {
                l2 = closed_l2(spectrum);
                // A patch's value does not depend on the patches beside it: the sum replaces only what needs it.
                const auto refined = nearly_rank_1(spectrum);
                if (V::any(refined)) l2 = select(refined, across(principal_direction(spectrum)) * scale, l2);
            }
            patch_value(spectrum, l2, measure).add_to(q_sums);
            if (job.pixel != Pixel::none) this->add_pixels(y, y + n, left, count);
            return;
        }
        Direction<V> v = principal_direction(spectrum);
        V l2 = zero;
        if (measure.of_singular_values()) {
            l2 = closed_l2(spectrum);
            const auto refined = nearly_rank_1(spectrum);
            if (V::any(refined)) {
                V m;
                Direction<V> turned = v;
                const V sum = across(v, m);
                l2 = select(refined, rotate_once_more(spectrum, sum, m, turned), l2);
                v = {select(refined, turned.x, v.x), select(refined, turned.y, v.y)};
            }
        }
        const Adjoint<V> adjoint = patch_adjoint(spectrum, l2, measure);
        const V along = adjoint.along * (V(S(job.q_scales[image])) * scale);
        weigh(v, along, fma(along, adjoint.ratio, along));
        if (SOBEL)
            sobel_adjoint<V, NC>(gx, gy, x, n);
        else
            central_adjoint<V, NC>(gx, gy, x, n);
        const bool past_cache = this->may_stream(left);
        const bool direct = job.channels == 1 && job.pixel == Pixel::none && count == std::int64_t(L) * n &&
                            n % V::unit == 0 && is_direct<S>(job.gradient) && (whole_lines || !past_cache);
        S* to = direct ? static_cast<S*>(job.gradient.data) + element(job.gradient, image, 0, y, left) : tile;
        const std::int64_t stride = direct ? job.gradient.stride_h : width;
        for (int r = 0; r < n; ++r) transpose_out(x + r * n, to + r * stride, direct && past_cache);
        if (!direct) this->finish(y, y + n, left, count, tile);
    }

    // The structure tensor of a group of patches, whose gradients are in gx and gy then.
    QKERNEL_INLINE Moments<V> differentiate(std::int64_t y, std::int64_t left, std::int64_t count,
                                            const Following& following) {
        const std::int64_t whole = std::int64_t(L) * n;
        const bool direct = job.channels == 1 && is_direct<S>(job.pred) && count == whole && n >= V::unit;
        // Two loops: where a choice is made for each row, less of memory is under way at a time.
        if (direct) {
            const S* from = static_cast<const S*>(job.pred.data) + element(job.pred, image, 0, y, left);
            for (int r = 0; r < n; ++r) load(from + r * job.pred.stride_h, r, following);
        } else {
            for (int r = 0; r < n; ++r) load(luma(y + r, left, count), r, following);
        }
        return SOBEL ? sobel_gradient<V, NC>(x, gx, gy, n, following) : central_gradient<V, NC>(x, gx, gy, n, following);
    }

    // The luma of `count` pixels from (y, left) on, in a run that is whole.
    const S* luma(std::int64_t y, std::int64_t left, std::int64_t count) {
        const S* from = read_luma<V>(job, image, y, left, count, runs, width);
        // With patches narrower than a transposition it is read past its end.
        if (count == std::int64_t(L) * n && n >= V::unit) return from;
        if (from != runs)
            for (std::int64_t i = 0; i < count; ++i) runs[i] = from[i];
        for (std::int64_t i = count; i < width; ++i) runs[i] = 0;
        return runs;
    }

    QKERNEL_INLINE void load(const S* from, int r, const Following& following) {
        transpose_in(from, x + r * n);
        following.ask_for_target(r);
    }

    // One row of L patches, apart.
    QKERNEL_INLINE void transpose_in(const S* from, V* to) {
        if constexpr (whole_lines) return V::gather_row(from, to);
        for (int k = 0; k + V::unit <= n; k += V::unit) V::gather_columns(from + k, n, to + k);
        if (n % V::unit) {
            const int k = n < V::unit ? 0 : n - V::unit;
            V::gather_columns(from + k, n, to + k);
        }
    }

    // One row of L patches, side by side again.
    QKERNEL_INLINE void transpose_out(const V* row, S* to, bool past_cache) {
        if constexpr (whole_lines) return V::scatter_row(row, to, past_cache);
        int k = 0;
        for (; k + V::unit <= n; k += V::unit) V::scatter_columns(row + k, to + k, n);
        if (n % V::unit)
            for (; k < n; ++k) {
                S lanes[L];
                row[k].store(lanes);
                for (int p = 0; p < L; ++p) to[p * n + k] = lanes[p];
            }
    }

    // sum p2^2
    QKERNEL_INLINE V across(Direction<V> v) {
        const V zero(0), minus_y = zero - v.y;
        V l2 = zero;
        for (int r = 0; r < n; ++r) {
            V sum = zero;
            for (int k = r * n; k < (r + 1) * n; ++k) {
                const V p2 = fma(gy[k], v.x, gx[k] * minus_y);
                sum = fma(p2, p2, sum);
            }
            l2 = l2 + sum;
        }
        return l2;
    }

    // sum p2^2, and m = sum p1 p2 = vx sum gx p2 + vy sum gy p2
    QKERNEL_INLINE V across(Direction<V> v, V& m) {
        const V zero(0), minus_y = zero - v.y;
        V l2 = zero;
        V mx = zero, my = zero;
        for (int r = 0; r < n; ++r) {
            V sum = zero, sum_x = zero, sum_y = zero;
            for (int k = r * n; k < (r + 1) * n; ++k) {
                const V p2 = fma(gy[k], v.x, gx[k] * minus_y);
                sum = fma(p2, p2, sum);
                sum_x = fma(gx[k], p2, sum_x);
                sum_y = fma(gy[k], p2, sum_y);
            }
            l2 = l2 + sum;
            mx = mx + sum_x;
            my = my + sum_y;
        }
        m = fma(mx, v.x, my * v.y);
        return l2;
    }

    // (gx, gy) <- dQ/d(gx, gy) times the constants of the gradient operator, which its adjoint expects applied.
    QKERNEL_INLINE void weigh(Direction<V> v, V along1, V along2) {
        const V zero(0), minus_y = zero - v.y;
        const V border(SOBEL ? S(1) : S(2));
        const V in_x1 = along1 * v.x, in_x2 = along2 * minus_y, in_y1 = along1 * v.y, in_y2 = along2 * v.x;
        const V out_x1 = in_x1 * border, out_x2 = in_x2 * border, out_y1 = in_y1 * border, out_y2 = in_y2 * border;
        const auto line = [&](int r, V ky1, V ky2) QKERNEL_LAMBDA_INLINE {
            const auto pixel = [&](int k, V kx1, V kx2) QKERNEL_LAMBDA_INLINE {
                const V p1 = fma(gx[k], v.x, gy[k] * v.y), p2 = fma(gy[k], v.x, gx[k] * minus_y);
                gx[k] = fma(p1, kx1, p2 * kx2);
                gy[k] = fma(p1, ky1, p2 * ky2);
            };
            pixel(r * n, out_x1, out_x2);
            for (int k = r * n + 1; k < (r + 1) * n - 1; ++k) pixel(k, in_x1, in_x2);
            pixel((r + 1) * n - 1, out_x1, out_x2);
        };
        line(0, out_y1, out_y2);
        for (int r = 1; r < n - 1; ++r) line(r, in_y1, in_y2);
        line(n - 1, out_y1, out_y2);
    }

    // Pixels outside the patches, in pieces that fit the buffers.
    void margin(std::int64_t top, std::int64_t bottom, std::int64_t left, std::int64_t right) {
        for (std::int64_t from = left; top < bottom && from < right; from += std::int64_t(L) * n) {
            const std::int64_t count = right - from < std::int64_t(L) * n ? right - from : std::int64_t(L) * n;
            if (BACKWARD)
                this->finish(top, bottom, from, count, nullptr);
            else
                this->add_pixels(top, bottom, from, count);
        }
    }

    const int n;
    const std::int64_t row;
    V *const x, *const gx, *const gy;
    S* const tile;
    Measure<S> measure;
    double q_sums[L] = {};
};

// Patch sizes 4, 8 and 16 are compiled for in float; others share one loop.
template <class V, bool SOBEL, bool BACKWARD>
Strip strip_of_size(int n) {
    const std::size_t bytes = StripRun<V, 0, SOBEL, BACKWARD>::scratch_bytes(n);
    if constexpr (sizeof(typename V::Scalar) == sizeof(float)) {
        if (n == 4) return {StripRun<V, 4, SOBEL, BACKWARD>::run, bytes};
        if (n == 8) return {StripRun<V, 8, SOBEL, BACKWARD>::run, bytes};
        if (n == 16) return {StripRun<V, 16, SOBEL, BACKWARD>::run, bytes};
    }
    return {StripRun<V, 0, SOBEL, BACKWARD>::run, bytes};
}

template <class V>
Strip strip_of(const Job& job, bool backward) {
    if (job.sobel)
        return backward ? strip_of_size<V, true, true>(job.patch_size) : strip_of_size<V, true, false>(job.patch_size);
    return backward ? strip_of_size<V, false, true>(job.patch_size) : strip_of_size<V, false, false>(job.patch_size);
}

template <class VFloat, class VDouble>
Strip strip_for(const Job& job, bool backward) {
    const bool wide = job.pred.dtype == Dtype::float64 || (job.target.data && job.target.dtype == Dtype::float64);
    return wide ? strip_of<VDouble>(job, backward) : strip_of<VFloat>(job, backward);
}

// What does not depend on the patches: the pixel term, and handing the gradient out. Included inside an unnamed
// namespace.
#pragma once

// Fewer than a vector's lanes.
template <class V>
QKERNEL_INLINE V load_some(const typename V::Scalar* p, std::int64_t count) {
    typename V::Scalar values[V::lanes] = {};
    for (int i = 0; i < count; ++i) values[i] = p[i];
    return V::load(values);
}

template <class V>
QKERNEL_INLINE void store_some(V v, typename V::Scalar* p, std::int64_t count) {
    typename V::Scalar values[V::lanes];
    v.store(values);
    for (int i = 0; i < count; ++i) p[i] = values[i];
}

template <Pixel PIXEL, class V>
QKERNEL_INLINE V pixel_term(V d, V eps2) {
    if (PIXEL == Pixel::l1) return abs(d);
    if (PIXEL == Pixel::mse) return d * d;
    return sqrt(fma(d, d, eps2));
}

template <Pixel PIXEL, class V>
QKERNEL_INLINE V pixel_derivative(V d, V eps2) {
    const V zero(0), one(1);
    // d * 0 is 0 for d = 0, and NaN for NaN.
    if (PIXEL == Pixel::l1) return select(zero < d, one, select(d < zero, zero - one, d * zero));
    if (PIXEL == Pixel::mse) return d + d;
    return d / sqrt(fma(d, d, eps2));
}

// Runs of rows for one thread; a strip of patches is built on it. Compiled once for all patch sizes.
template <class V>
class PixelRun {
  protected:
    using S = typename V::Scalar;
    static constexpr int L = V::lanes;

    PixelRun(const Job& job_, std::int64_t image_, std::int64_t width_, S* runs_)
        : job(job_), image(image_), width(width_), runs(runs_) {
        eps2 = V(S(job.charbonnier_eps * job.charbonnier_eps));
    }

    // Forward: the pixel term of rows top..bottom, `count` columns from `left` on.
    void add_pixels(std::int64_t top, std::int64_t bottom, std::int64_t left, std::int64_t count) {
        if (job.pixel == Pixel::l1) add_terms<Pixel::l1>(top, bottom, left, count);
        if (job.pixel == Pixel::mse) add_terms<Pixel::mse>(top, bottom, left, count);
        if (job.pixel == Pixel::charbonnier) add_terms<Pixel::charbonnier>(top, bottom, left, count);
    }

    // Backward: the gradient of rows top..bottom, `count` columns from `left` on; dQ/dluma is in `q`, or 0.
    void finish(std::int64_t top, std::int64_t bottom, std::int64_t left, std::int64_t count, const S* q) {
        if (job.pixel == Pixel::none) finish_with<Pixel::none>(top, bottom, left, count, q);
        if (job.pixel == Pixel::l1) finish_with<Pixel::l1>(top, bottom, left, count, q);
        if (job.pixel == Pixel::mse) finish_with<Pixel::mse>(top, bottom, left, count, q);
        if (job.pixel == Pixel::charbonnier) finish_with<Pixel::charbonnier>(top, bottom, left, count, q);
    }

    // Whether whole vectors of the gradient, from column `left` on, are to be written past the cache.
    QKERNEL_INLINE bool may_stream(std::int64_t left) const {
        return job.stream_gradient && left * std::int64_t(sizeof(S)) % std::int64_t(sizeof(V)) == 0;
    }

    const Job& job;
    const std::int64_t image, width;
    S* const runs;  // buffers of `width` pixels: luma and its channels; or prediction, target, result (of each channel)
    V eps2;
    double pixel_sums[L] = {};

  private:
    template <Pixel PIXEL>
    void add_terms(std::int64_t top, std::int64_t bottom, std::int64_t left, std::int64_t count) {
        V sum(0);
        for (std::int64_t c = 0; c < job.channels; ++c)
            for (std::int64_t y = top; y < bottom; ++y) {
                const S* pred = read_run(job.pred, image, c, y, left, count, runs);
                const S* target = read_run(job.target, image, c, y, left, count, runs + width);
                std::int64_t i = 0;
                for (; i + L <= count; i += L)
                    sum = sum + pixel_term<PIXEL>(V::load(pred + i) - V::load(target + i), eps2);
                if (i < count) {
                    const V d = load_some<V>(pred + i, count - i) - load_some<V>(target + i, count - i);
                    S terms[L];
                    pixel_term<PIXEL>(d, eps2).store(terms);
                    for (std::int64_t k = 0; k < count - i; ++k) pixel_sums[k] += terms[k];
                }
            }
        sum.add_to(pixel_sums);
    }

    template <Pixel PIXEL>
    void finish_with(std::int64_t top, std::int64_t bottom, std::int64_t left, std::int64_t count, const S* q) {
        const S luma[3] = {S(0.299), S(0.587), S(0.114)};
        const bool direct = is_direct<S>(job.gradient), past_cache = direct && may_stream(left);
        const bool interleaved = is_interleaved_rgb(job.gradient, job.channels);
        const V pixel_scale{PIXEL == Pixel::none ? S(0) : S(job.pixel_scales[image])};
        for (std::int64_t y = top; y < bottom; ++y) {
            const S* from = q ? q + (y - top) * width : nullptr;
            for (std::int64_t c = 0; c < job.channels; ++c) {
                const V share(job.channels == 1 ? S(1) : luma[c]);
                S* to = direct ? static_cast<S*>(job.gradient.data) + element(job.gradient, image, c, y, left)
                               : runs + (interleaved ? 2 + c : 2) * width;
                const S *pred = nullptr, *target = nullptr;
                if (PIXEL != Pixel::none) {
                    pred = read_run(job.pred, image, c, y, left, count, runs);
                    target = read_run(job.target, image, c, y, left, count, runs + width);
                }
                const auto put = [&](std::int64_t i, auto load, auto store) QKERNEL_LAMBDA_INLINE {
                    V g = from ? load(from + i) * share : V(0);
                    if (PIXEL != Pixel::none) {
                        const V d = load(pred + i) - load(target + i);
                        g = fma(pixel_derivative<PIXEL>(d, eps2), pixel_scale, g);
                    }
                    store(g, to + i);
                };
                const auto load = [](const S* p) QKERNEL_LAMBDA_INLINE { return V::load(p); };
                const std::int64_t whole = count / L * L;
                for (std::int64_t i = 0; i < whole; i += L)
                    put(i, load, [&](V g, S* p) QKERNEL_LAMBDA_INLINE { past_cache ? g.stream(p) : g.store(p); });
                if (whole < count) {
                    const std::int64_t rest = count - whole;
                    put(
                        whole, [&](const S* p) QKERNEL_LAMBDA_INLINE { return load_some<V>(p, rest); },
                        [&](V g, S* p) QKERNEL_LAMBDA_INLINE { store_some(g, p, rest); });
                }
                if (!direct && !interleaved) write_run(job.gradient, image, c, y, left, count, to);
            }
            if (interleaved) write_rgb(job.gradient, image, y, left, count, runs + 2 * width, width);
        }
    }
};

// The second, tiny kernel of a forward pass: the warps' sums become the loss, in double precision and a fixed order.
#pragma once

#include <type_traits>

#include "job.h"
#include "lanes.h"

namespace qkernel::cuda {

struct Combination {
    double weight = 1;
    Reduction reduction = Reduction::mean;
    void* value = nullptr;  // S: one number, or one per image
    void* terms = nullptr;  // with a pixel term: that and Q, the one's numbers before the other's
};

constexpr int combine_warps = 32;  // of its one block

// Doubles of shared memory: what each warp has of Q, of the pixel term and of the loss.
constexpr int combine_scratch = 3 * combine_warps;

// What is summed up for an image, or over the images.
template <int L>
struct Totals {
    Lanes<double, L> q{0.0}, pixels{0.0}, loss{0.0};
};

// The part of each of 2^shift threads in the sum of `count` numbers, from number `begin` on.
//
// Four neighbours are added in S, whoever adds them: a GeForce converts two floats a cycle to double precision. And
// eight numbers are on their way at once, for the time goes into waiting for them.
template <class S, int L>
QKERNEL_INLINE Lanes<double, L> part_of_sum(const S* numbers, const Lanes<std::int64_t, L>& begin, std::uint32_t count,
                                            const Lanes<std::uint32_t, L>& part, int shift) {
    using F = Lanes<S, L>;
    using U = Lanes<std::uint32_t, L>;
    constexpr int four = 4;
    const std::uint32_t step = std::uint32_t(four) << shift;
    const F zero(S(0));
    Lanes<double, L> sum(0.0);
    const auto add = [&](std::uint32_t first, auto fours) {
        constexpr int some = four * decltype(fours)::value;
        F x[some];
        Lanes<bool, L> there[some];
#pragma unroll
        for (int k = 0; k < some; ++k) {
            const U at = part * U(std::uint32_t(four)) + U(first + k / four * step + k % four);
            there[k] = at < U(count);
            // Past the end the last one is read, and not counted: no load waits for a decision.
            const U near = select(there[k], at, U(count - 1u));
            x[k] = F::template each<S>([&](int i) { return numbers[begin.v[i] + near.v[i]]; });
        }
#pragma unroll
        for (int k = 0; k < some; ++k) x[k] = select(there[k], x[k], zero);
#pragma unroll
        for (int k = 0; k < some; k += four)
            sum = sum + ((x[k] + x[k + 1]) + (x[k + 2] + x[k + 3])).template as<double>();
    };
    std::uint32_t first = 0;
#pragma unroll 1
    for (; first < count && count - first > step; first += 2 * step) add(first, std::integral_constant<int, 2>{});
    if (first < count) add(first, std::integral_constant<int, 1>{});
    return sum;
}

// BLOCK runs its warps: each(f) all of them, f(number of the warp), and a barrier; first(f) the first one alone.
//
// Few images share the warps out, and the first warp finishes them together. Many are dealt out to the threads, 2^shift
// for an image, and every warp finishes its own. What follows an image's sums, divisions in double precision among it,
// is so done for many images at once.
template <class S, int L, class Block>
QKERNEL_INLINE void combine(const Job& job, const Combination& call, double* shared, Block block) {
    using D = Lanes<double, L>;
    using I = Lanes<std::int64_t, L>;
    using U = Lanes<std::uint32_t, L>;
    const Grid grid = grid_of(job);
    const bool with_pixels = job.pixel != Pixel::none, one_each = call.reduction == Reduction::none;
    const std::uint32_t inside = job.tasks.inside, all = inside + job.tasks.outside;
    const U lane = lane_ids<L>();
    // 0 / 0, NaN, where the offset leaves no patch.
    const D patches(double(grid.count())), area(double(job.channels) * double(job.height) * double(job.width));

    const auto part_of_image = [&](const I& image, const U& part, int shift) {
        Totals<L> t;
        const S *q = static_cast<const S*>(job.q_sums), *pixels = static_cast<const S*>(job.pixel_sums);
        t.q = part_of_sum(q, image * I(inside), inside, part, shift);
        if (with_pixels) t.pixels = part_of_sum(pixels, image * I(all), all, part, shift);
        return t;
    };
    // In each of 2^shift neighbouring lanes the sum of them all.
    const auto add_up = [&](Totals<L>& t, int shift) {
#pragma unroll 1
        for (int mask = (1 << shift) / 2; mask; mask /= 2) {
            t.q = t.q + exchange(t.q, mask);
            if (with_pixels) t.pixels = t.pixels + exchange(t.pixels, mask);
        }
    };
    // An image's mean Q, mean pixel term and loss.
    const auto finish = [&](Totals<L>& t) {
        t.q = t.q / patches;
        if (with_pixels) t.pixels = t.pixels / area;  // 0 / area takes a GPU the slow way
        t.loss = D(call.weight) * t.q;
        // Without weight the loss is the pixel term alone, also where Q is not finite.
        if (with_pixels) t.loss = call.weight == 0 ? t.pixels : t.pixels - t.loss;
    };
    const auto put = [&](const Lanes<bool, L>& mask, const U& at, std::int64_t count, const Totals<L>& t) {
        store_where(mask, static_cast<S*>(call.value), at, t.loss.template as<S>());
        if (!with_pixels) return;
        store_where(mask, static_cast<S*>(call.terms), at, t.pixels.template as<S>());
        store_where(mask, static_cast<S*>(call.terms) + count, at, t.q.template as<S>());
    };
    const auto only = [&](const Lanes<bool, L>& mask, Totals<L>& t) {
        const D zero(0.0);
        t = {select(mask, t.q, zero), select(mask, t.pixels, zero), select(mask, t.loss, zero)};
    };
    const auto share = [&](int warp, const Totals<L>& t) {
        store_once(shared + warp, t.q);
        store_once(shared + combine_warps + warp, t.pixels);
        store_once(shared + 2 * combine_warps + warp, t.loss);
    };
    const auto shared_out = [&] {
        return Totals<L>{gather<double>(shared, lane), gather<double>(shared + combine_warps, lane),
                         gather<double>(shared + 2 * combine_warps, lane)};
    };
    // The first warp's last step: the sum over its lanes, or their mean.
    const auto put_sum_of_images = [&](Totals<L> t) {
        t = {warp_sum(t.q), warp_sum(t.pixels), warp_sum(t.loss)};
        if (call.reduction == Reduction::mean) {
            const D images(static_cast<double>(job.images));
            t.q = t.q / images;
            if (with_pixels) t.pixels = t.pixels / images;
            t.loss = t.loss / images;
        }
        put(lane == U(0u), lane, 1, t);
    };

    if (job.images <= combine_warps) {
        // The warps of one image are 2^shift: as many as the batch leaves it, but no more than four sums a thread need.
        int shift = 5;
        while (shift > 0 && ((job.images << shift) > combine_warps || all <= 64u << shift)) --shift;
        block.each([&](int warp) {
            Totals<L> t;
            if (const std::int64_t image = warp >> shift; image < job.images) {
                const auto first = static_cast<std::uint32_t>(warp & ((1 << shift) - 1)) * 32u;
                t = part_of_image(I(image), lane + U(first), 5 + shift);
                add_up(t, 5);
            }
            share(warp, t);
        });
        block.first([&] {
            Totals<L> t = shared_out();
            add_up(t, shift);
            finish(t);
            const U image = lane >> shift;
            const auto counts = ((image << shift) == lane) & (image < U(static_cast<std::uint32_t>(job.images)));
            if (one_each) return put(counts, image, job.images, t);
            only(counts, t);
            put_sum_of_images(t);
        });
        return;
    }

    int shift = 5;  // the threads of one image are 2^shift; fewer while that still is one turn of part_of_sum
    constexpr std::int64_t threads = 32 * combine_warps;
    while (shift > 0 && (job.images << shift) > threads && all <= 8u << (shift - 1)) --shift;
    block.each([&](int warp) {
        Totals<L> totals;
        const U thread = lane + U(static_cast<std::uint32_t>(warp) * 32u);
        const U number = thread >> shift, part = thread - (number << shift);
#pragma unroll 1
        for (std::int64_t first = 0; first < job.images; first += threads >> shift) {
            const I image = number.template as<std::int64_t>() + I(first), last(job.images - 1);
            Totals<L> t = part_of_image(select(image <= last, image, last), part, shift);
            add_up(t, shift);
            finish(t);
            const auto counts = (part == U(0u)) & (image <= last);
            if (one_each) {
                put(counts, image.template as<std::uint32_t>(), job.images, t);
                continue;
            }
            only(counts, t);
            totals = {totals.q + t.q, totals.pixels + t.pixels, totals.loss + t.loss};
        }
        if (one_each) return;
        share(warp, {warp_sum(totals.q), warp_sum(totals.pixels), warp_sum(totals.loss)});
    });
    if (!one_each) block.first([&] { put_sum_of_images(shared_out()); });
}

}  // namespace qkernel::cuda

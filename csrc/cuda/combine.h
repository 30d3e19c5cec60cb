// The second, tiny kernel of a forward pass: the warps' sums become the loss, in double precision and a fixed order.
#pragma once

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

// Doubles of shared memory: two sums of each warp, for the images at hand and for those before, still being read.
constexpr int combine_scratch = 2 * 2 * combine_warps;

// What is summed up for an image, or over the images.
template <int L>
struct Totals {
    Lanes<double, L> q{0.0}, pixels{0.0}, loss{0.0};
};

// The part of one warp, of 2^shift, in the sum of `count` numbers.
template <class S, int L>
QKERNEL_INLINE Lanes<double, L> part_of_sum(const S* numbers, std::int64_t count, int warp, int shift) {
    using D = Lanes<double, L>;
    const auto lane = lane_ids<L>().template as<std::int64_t>();
    const int step = 5 + shift;
    const std::int64_t turns = (count - 32 * warp + (std::int64_t(1) << step) - 1) >> step;
    D sum(0.0);
#pragma unroll 16
    for (std::int64_t turn = 0; turn < turns; ++turn) {
        const auto at = lane + Lanes<std::int64_t, L>(32 * warp + (turn << step));
        sum = sum + D::template each<double>([&](int i) { return at.v[i] < count ? double(numbers[at.v[i]]) : 0.0; });
    }
    return warp_sum(sum);
}

// BLOCK runs its warps: each(f) all of them, f(number of the warp), and a barrier; first(f) the first one alone.
//
// As many images at a time as there are warps, each image's sums by as many warps as there are for it. Then the first
// warp finishes them, a lane for each warp: what follows the sums, divisions in double precision among it, is done for
// all these images at once.
template <class S, int L, class Block>
QKERNEL_INLINE void combine(const Job& job, const Combination& call, double* shared, Block block) {
    using D = Lanes<double, L>;
    using U = Lanes<std::uint32_t, L>;
    const Grid grid = grid_of(job);
    const bool with_pixels = job.pixel != Pixel::none;
    const std::int64_t per_image = std::int64_t(job.tasks.inside) + job.tasks.outside;
    // 0 / 0, NaN, where the offset leaves no patch.
    const D patches(double(grid.count())), area(double(job.channels) * double(job.height) * double(job.width));
    int shift = 5;  // the warps of one image are 2^shift
    while (shift > 0 && (job.images << shift) > combine_warps) --shift;
    const int warps = 1 << shift, at_once = combine_warps >> shift;

    const auto put = [&](const Lanes<bool, L>& mask, const U& at, std::int64_t count, const Totals<L>& t) {
        store_where(mask, static_cast<S*>(call.value), at, t.loss.template as<S>());
        if (!with_pixels) return;
        store_where(mask, static_cast<S*>(call.terms), at, t.pixels.template as<S>());
        store_where(mask, static_cast<S*>(call.terms) + count, at, t.q.template as<S>());
    };
    // The numbers of the images from `first` on; each in the first lane of its warps, nothing in the others.
    const auto finish = [&](std::int64_t first, const double* sums, Totals<L>& totals) {
        const U lane = lane_ids<L>(), number = lane >> shift;
        Totals<L> t;
        t.q = gather<double>(sums, lane);
        if (with_pixels) t.pixels = gather<double>(sums + combine_warps, lane);
        for (int mask = warps / 2; mask; mask /= 2) {
            t.q = t.q + exchange(t.q, mask);
            t.pixels = t.pixels + exchange(t.pixels, mask);
        }
        t.q = t.q / patches;
        if (with_pixels) t.pixels = t.pixels / area;  // 0 / area takes a GPU the slow way
        t.loss = D(call.weight) * t.q;
        // Without weight the loss is the pixel term alone, also where Q is not finite.
        if (with_pixels) t.loss = call.weight == 0 ? t.pixels : t.pixels - t.loss;
        const auto left = static_cast<std::uint32_t>(job.images - first < at_once ? job.images - first : at_once);
        const auto counts = ((number << shift) == lane) & (number < U(left));
        if (call.reduction == Reduction::none)
            return put(counts, number + U(static_cast<std::uint32_t>(first)), job.images, t);
        const D zero(0.0);
        totals.q = totals.q + select(counts, t.q, zero);
        totals.pixels = totals.pixels + select(counts, t.pixels, zero);
        totals.loss = totals.loss + select(counts, t.loss, zero);
    };

    Totals<L> totals;  // of the first warp
    double* sums = shared;
    for (std::int64_t first = 0; first < job.images; first += at_once) {
        block.each([&](int warp) {
            const std::int64_t image = first + (warp >> shift);
            D q(0.0), pixels(0.0);
            if (image < job.images) {
                const int part = warp & (warps - 1);
                q = part_of_sum<S, L>(static_cast<const S*>(job.q_sums) + image * job.tasks.inside, job.tasks.inside,
                                      part, shift);
                if (with_pixels)
                    pixels = part_of_sum<S, L>(static_cast<const S*>(job.pixel_sums) + image * per_image, per_image,
                                               part, shift);
            }
            store_once(sums + warp, q);
            store_once(sums + combine_warps + warp, pixels);
        });
        block.first([&] { finish(first, sums, totals); });
        // The others go on to the next images meanwhile.
        sums = sums == shared ? shared + 2 * combine_warps : shared;
    }
    if (call.reduction == Reduction::none) return;
    block.first([&] {
        totals = {warp_sum(totals.q), warp_sum(totals.pixels), warp_sum(totals.loss)};
        if (call.reduction == Reduction::mean) {
            const D images(static_cast<double>(job.images));
            totals.q = totals.q / images;
            if (with_pixels) totals.pixels = totals.pixels / images;
            totals.loss = totals.loss / images;
        }
        const U lane = lane_ids<L>();
        put(lane == U(0u), lane, 1, totals);
    });
}

}  // namespace qkernel::cuda

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

// What is summed up for an image, or over the images.
template <int L>
struct Totals {
    Lanes<double, L> q{0.0}, pixels{0.0}, loss{0.0};
};

// The part of one warp among `warps` in the sum of `count` numbers.
template <class S, int L>
QKERNEL_INLINE Lanes<double, L> part_of_sum(const S* numbers, std::int64_t count, int warp, int warps) {
    using D = Lanes<double, L>;
    const auto lane = lane_ids<L>().template as<std::int64_t>();
    D sum(0.0);
#pragma unroll 16
    for (std::int64_t first = warp * 32; first < count; first += 32 * warps) {
        const auto at = lane + Lanes<std::int64_t, L>(first);
        sum = sum + D::template each<double>([&](int i) { return at.v[i] < count ? double(numbers[at.v[i]]) : 0.0; });
    }
    return warp_sum(sum);
}

// BLOCK runs its warps: each(f) all of them, f(number of the warp); first(f) one; a barrier after either.
template <class S, int L, class Block>
QKERNEL_INLINE void combine(const Job& job, const Combination& call, double* shared, Block block) {
    using D = Lanes<double, L>;
    const Grid grid = grid_of(job);
    const bool with_pixels = job.pixel != Pixel::none;
    const std::int64_t per_image = std::int64_t(job.tasks.inside) + job.tasks.outside;
    // 0 / 0, NaN, where the offset leaves no patch.
    const D patches(double(grid.count())), area(double(job.channels) * double(job.height) * double(job.width));

    const auto part = [&](std::int64_t image, int warp, int warps) {
        Totals<L> t;
        t.q = part_of_sum<S, L>(static_cast<const S*>(job.q_sums) + image * job.tasks.inside, job.tasks.inside, warp,
                                warps);
        if (with_pixels)
            t.pixels = part_of_sum<S, L>(static_cast<const S*>(job.pixel_sums) + image * per_image, per_image, warp,
                                         warps);
        return t;
    };
    const auto put = [&](std::int64_t at, std::int64_t count, const Totals<L>& t) {
        store_once(static_cast<S*>(call.value) + at, t.loss.template as<S>());
        if (!with_pixels) return;
        store_once(static_cast<S*>(call.terms) + at, t.pixels.template as<S>());
        store_once(static_cast<S*>(call.terms) + count + at, t.q.template as<S>());
    };
    // The image's own numbers, from its sums; into the totals, or out.
    const auto finish = [&](std::int64_t image, Totals<L> t, Totals<L>& totals) {
        t.q = t.q / patches;
        if (with_pixels) t.pixels = t.pixels / area;  // 0 / area takes a GPU the slow way
        t.loss = D(call.weight) * t.q;
        // Without weight the loss is the pixel term alone, also where Q is not finite.
        if (with_pixels) t.loss = call.weight == 0 ? t.pixels : t.pixels - t.loss;
        if (call.reduction == Reduction::none) put(image, job.images, t);
        totals.q = totals.q + t.q;
        totals.pixels = totals.pixels + t.pixels;
        totals.loss = totals.loss + t.loss;
    };
    const auto keep = [&](int warp, const Totals<L>& t) {
        store_once(shared + 3 * warp, t.q);
        store_once(shared + 3 * warp + 1, t.pixels);
        store_once(shared + 3 * warp + 2, t.loss);
    };
    const auto kept = [&] {
        const auto at = lane_ids<L>() * Lanes<std::uint32_t, L>(3u);
        Totals<L> t;
        t.q = warp_sum(gather<double>(shared, at));
        t.pixels = warp_sum(gather<double>(shared + 1, at));
        t.loss = warp_sum(gather<double>(shared + 2, at));
        return t;
    };

    Totals<L> totals;
    if (job.images < combine_warps) {
        for (std::int64_t image = 0; image < job.images; ++image) {
            block.each([&](int warp) { keep(warp, part(image, warp, combine_warps)); });
            block.first([&] { finish(image, kept(), totals); });
        }
    } else {
        block.each([&](int warp) {
            Totals<L> mine;
            for (std::int64_t image = warp; image < job.images; image += combine_warps)
                finish(image, part(image, 0, 1), mine);
            keep(warp, mine);
        });
        block.first([&] { totals = kept(); });
    }
    if (call.reduction == Reduction::none) return;
    block.first([&] {
        if (call.reduction == Reduction::mean) {
            const D images(static_cast<double>(job.images));
            totals.q = totals.q / images;
            if (with_pixels) totals.pixels = totals.pixels / images;
            totals.loss = totals.loss / images;
        }
        put(0, 1, totals);
    });
}

}  // namespace qkernel::cuda

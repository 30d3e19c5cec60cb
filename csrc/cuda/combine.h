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

constexpr int combine_warps = 32;  // of its one block, at most

// Doubles of shared memory: what each warp has of Q and of the pixel term, and what these are multiplied by.
constexpr int combine_scratch = 2 * combine_warps + 2;

// How many warps a call's block has, a power of two. One value for all images: as few as take no more than 16 sums a
// thread, for the fewer there are, the sooner they have come together.
inline int warps_to_combine(const Job& job) {
    if (job.per_image) return combine_warps;
    const std::int64_t sums = job.images * (job.pixel == Pixel::none ? job.tasks.q_stride() : job.tasks.pixel_stride());
    int warps = 1;
    while (warps < combine_warps && sums > std::int64_t(warps) * 32 * 16) warps *= 2;
    return warps;
}

// What is summed up.
template <int L>
struct Totals {
    Lanes<double, L> q{0.0}, pixels{0.0};
};

// Numbers in 16 bytes, moved by one instruction.
template <class S>
struct alignas(16) Several {
    static constexpr int count = 16 / sizeof(S);
    S v[count];
};

// The part of each of 2^shift threads in the sum of `count` numbers, from number `begin` on, where 16 bytes begin.
//
// Neighbours of 16 bytes are added in S, whoever adds them: a GeForce converts two floats a cycle to double precision.
// And up to eight times 16 bytes are on their way at once, for the time goes into waiting for them.
template <class S, int L>
QKERNEL_INLINE Lanes<double, L> part_of_sum(const S* numbers, const Lanes<std::int64_t, L>& begin, std::int64_t count,
                                            const Lanes<std::uint32_t, L>& part, int shift) {
    using F = Lanes<S, L>;
    using U = Lanes<std::uint32_t, L>;
    constexpr int several = Several<S>::count;
    // Counted in 32 bits, which take half the registers: no memory holds the pixels of 2^32 times 16 bytes of sums.
    const std::uint32_t threads = 1u << shift;
    const auto whole = static_cast<std::uint32_t>(count / several), rest = static_cast<std::uint32_t>(count % several);
    const std::uint32_t all = whole + (rest != 0);
    Lanes<double, L> sum(0.0);
    // `times` 16 bytes of each thread: whole ones, or among them the last of all, which need not be.
    const auto add = [&](std::uint32_t first, auto times, auto with_last) {
        constexpr int some = decltype(times)::value;
        constexpr bool last = decltype(with_last)::value;
        F x[some * several];
#pragma unroll
        for (int j = 0; j < some; ++j) {
            const U at = part + U(first + static_cast<std::uint32_t>(j) * threads);
#pragma unroll
            for (int i = 0; i < L; ++i) {
                Several<S> loaded{};
                if (at.v[i] < (last ? all : whole))
                    loaded = reinterpret_cast<const Several<S>*>(numbers + begin.v[i])[at.v[i]];
#pragma unroll
                for (int k = 0; k < several; ++k) {
                    const bool there = !last || at.v[i] < whole || static_cast<std::uint32_t>(k) < rest;
                    x[j * several + k].v[i] = there ? loaded.v[k] : S(0);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < some; ++j) {
            const F* y = x + j * several;
            F total = y[0] + y[1];
            if constexpr (several == 4) total = total + (y[2] + y[3]);
            sum = sum + total.template as<double>();
        }
    };
    std::uint32_t first = 0;
#pragma unroll 1
    for (; first < all && all - first > 2 * threads; first += 8 * threads)
        add(first, std::integral_constant<int, 8>{}, std::false_type{});
    if (first > whole) first = whole;
    if (first < all) add(first, std::integral_constant<int, 2>{}, std::true_type{});
    return sum;
}

// BLOCK runs its warps: each(f) all of them, f(number of the warp), and a barrier; first(f) the first one alone. wait()
// returns when the sums are there.
template <class S, int L, class Block>
struct Combine {
    using D = Lanes<double, L>;
    using I = Lanes<std::int64_t, L>;
    using U = Lanes<std::uint32_t, L>;

    const Job& job;
    const Combination& call;
    double* shared;
    Block block;
    bool with_pixels;

    QKERNEL_INLINE Combine(const Job& job_, const Combination& call_, double* shared_, Block block_)
        : job(job_), call(call_), shared(shared_), block(block_), with_pixels(job.pixel != Pixel::none) {}

    // What the sums are multiplied by; 0 times infinity, NaN, where the offset leaves no patch. One warp divides, for a
    // GeForce computes two numbers of double precision a cycle; and meanwhile they take no registers.
    QKERNEL_INLINE void prepare() const {
        block.each([&](int warp) {
            if (warp != 0) return;
            const D images(call.reduction == Reduction::mean ? static_cast<double>(job.images) : 1.0), one(1.0);
            store_once(per_patch(), one / (D(double(grid_of(job).count())) * images));
            if (!with_pixels) return;
            const D pixels(double(job.channels) * double(job.height) * double(job.width));
            store_once(per_pixel(), one / (pixels * images));
        });
    }

    // One value for all images, by 2^shift warps.
    QKERNEL_INLINE void together(int shift) const {
        block.each([&](int warp) {
            const U thread = lane_ids<L>() + U(static_cast<std::uint32_t>(warp) * 32u);
            const I begin(0);
            Totals<L> t;
            t.q = part_of_sum(q_sums(), begin, job.images * job.tasks.q_stride(), thread, 5 + shift);
            if (with_pixels)
                t.pixels =
                    part_of_sum(pixel_sums(), begin, job.images * job.tasks.pixel_stride(), thread, 5 + shift);
            add_up(t, 5);
            share(warp, t);
        });
        block.first([&] {
            Totals<L> t = shared_out(lane_ids<L>() < U(1u << shift));
            add_up(t, shift);
            finish(t, lane_ids<L>() == U(0u), lane_ids<L>(), 1);
        });
    }

    // A value for each image, by all warps. Few images share them, and the first warp finishes them together. Many are
    // dealt out to the threads, 2^shift for an image, and every warp finishes its own.
    QKERNEL_INLINE void one_by_one() const {
        const std::int64_t all = job.tasks.pixel_stride();
        const U lane = lane_ids<L>();
        int shift = 5;
        if (job.images <= combine_warps) {
            // The warps of one image are 2^shift: as many as the batch leaves it, but no more than 16 sums a thread
            // need.
            while (shift > 0 && ((job.images << shift) > combine_warps || all <= std::int64_t(512) << (shift - 1)))
                --shift;
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
                Totals<L> t = shared_out(lane < U(32u));
                add_up(t, shift);
                const U image = lane >> shift;
                const auto counts = ((image << shift) == lane) & (image < U(static_cast<std::uint32_t>(job.images)));
                finish(t, counts, image, job.images);
            });
            return;
        }
        // The threads of one image are 2^shift; fewer while that still is one turn of part_of_sum.
        constexpr std::int64_t threads = 32 * combine_warps;
        while (shift > 0 && (job.images << shift) > threads && all <= std::int64_t(8) << (shift - 1)) --shift;
        block.each([&](int warp) {
            const U thread = lane + U(static_cast<std::uint32_t>(warp) * 32u);
            const U number = thread >> shift, part = thread - (number << shift);
#pragma unroll 1
            for (std::int64_t first = 0; first < job.images; first += threads >> shift) {
                const I image = number.template as<std::int64_t>() + I(first), last(job.images - 1);
                Totals<L> t = part_of_image(select(image <= last, image, last), part, shift);
                add_up(t, shift);
                finish(t, (part == U(0u)) & (image <= last), image.template as<std::uint32_t>(), job.images);
            }
        });
    }

  private:
    QKERNEL_INLINE double* per_patch() const { return shared + 2 * combine_warps; }
    QKERNEL_INLINE double* per_pixel() const { return per_patch() + 1; }
    QKERNEL_INLINE const S* q_sums() const { return static_cast<const S*>(job.q_sums); }
    QKERNEL_INLINE const S* pixel_sums() const { return static_cast<const S*>(job.pixel_sums); }

    QKERNEL_INLINE Totals<L> part_of_image(const I& image, const U& part, int shift) const {
        const std::int64_t inside = job.tasks.inside;
        Totals<L> t;
        t.q = part_of_sum(q_sums(), image * I(job.tasks.q_stride()), inside, part, shift);
        if (with_pixels)
            t.pixels = part_of_sum(pixel_sums(), image * I(job.tasks.pixel_stride()), inside + job.tasks.outside, part,
                                   shift);
        return t;
    }

    // In each of 2^shift neighbouring lanes the sum of them all.
    QKERNEL_INLINE void add_up(Totals<L>& t, int shift) const {
#pragma unroll 1
        for (int mask = (1 << shift) / 2; mask; mask /= 2) {
            t.q = t.q + exchange(t.q, mask);
            if (with_pixels) t.pixels = t.pixels + exchange(t.pixels, mask);
        }
    }

    QKERNEL_INLINE void share(int warp, const Totals<L>& t) const {
        store_once(shared + warp, t.q);
        if (with_pixels) store_once(shared + combine_warps + warp, t.pixels);
    }
    QKERNEL_INLINE Totals<L> shared_out(const Lanes<bool, L>& mask) const {
        const U at = select(mask, lane_ids<L>(), U(0u));
        Totals<L> t;
        t.q = select(mask, gather<double>(shared, at), t.q);
        if (with_pixels) t.pixels = select(mask, gather<double>(shared + combine_warps, at), t.pixels);
        return t;
    }

    // What the sums become, number `at` of `count`: Q, pixel term and loss.
    QKERNEL_INLINE void finish(Totals<L> t, const Lanes<bool, L>& mask, const U& at, std::int64_t count) const {
        t.q = t.q * D(*per_patch());
        D loss = D(call.weight) * t.q;
        if (with_pixels) {
            t.pixels = t.pixels * D(*per_pixel());
            // Without weight the loss is the pixel term alone, also where Q is not finite.
            loss = call.weight == 0 ? t.pixels : t.pixels - loss;
        }
        store_where(mask, static_cast<S*>(call.value), at, loss.template as<S>());
        if (!with_pixels) return;
        store_where(mask, static_cast<S*>(call.terms), at, t.pixels.template as<S>());
        store_where(mask, static_cast<S*>(call.terms) + count, at, t.q.template as<S>());
    }
};

// By 2^shift warps.
template <class S, int L, class Block>
QKERNEL_INLINE void combine(const Job& job, const Combination& call, double* shared, int shift, Block block) {
    const Combine<S, L, Block> all(job, call, shared, block);
    all.prepare();
    block.wait();
    if (call.reduction == Reduction::none)
        all.one_by_one();
    else
        all.together(shift);
}

}  // namespace qkernel::cuda

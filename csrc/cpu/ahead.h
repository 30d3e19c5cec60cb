// Asking memory for the pixels of patches to come. Included inside an unnamed namespace.
//
// The hardware follows each of the N rows of a group of patches for a few lines only before the group ends, and would
// wait for memory at every one. A core keeps track of a few dozen lines under way. So a group's lines are not asked for
// all at once, which holds the loads up until they are under way and leaves memory idle during the arithmetic, but a row
// at a time: the target's between the loads of the prediction, the prediction's between the rows of the gradient.
#pragma once

// L patches are a group; WHOLE is the bytes of a row of it in the vectors' own type.
template <int L, int WHOLE>
class Ahead {
  public:
    // The group to be asked for while the one from patch `first` of patch row `row` on is computed.
    Ahead(const Job& job, std::int64_t image, std::int64_t row, std::int64_t first) {
        // Where a group is all there is of a row, pixels follow one another in memory, and the hardware does better.
        if (job.columns <= L) return;
        const bool with_target = job.pixel != Pixel::none;
        first += (with_target ? 1 : 2) * L;
        const std::int64_t groups = (job.columns + L - 1) / L * L;
        for (; first >= groups; first -= groups) ++row;
        if (row >= job.rows) {
            row -= job.rows;
            ++image;
        }
        if (image >= job.images || row >= job.rows) return;
        const std::int64_t left_over = job.columns - first;
        const std::int64_t count = (left_over < L ? left_over : L) * job.patch_size;
        const std::int64_t y = job.top + row * job.patch_size, x = job.left + first * job.patch_size;
        prediction.add(job.pred, job.channels, image, y, x, count);
        if (with_target) target.add(job.target, job.channels, image, y, x, count);
    }

    QKERNEL_INLINE void ask_for_prediction(int r) const { prediction.ask_for(r); }
    QKERNEL_INLINE void ask_for_target(int r) const { target.ask_for(r); }

  private:
    struct Part {
        void add(const Image& source, std::int64_t channels, std::int64_t image, std::int64_t y, std::int64_t x,
                 std::int64_t count) {
            // Channels that lie next to each other are one run of pixels.
            const bool together = source.stride_w == channels;
            if (!together && source.stride_w != 1) return;
            const std::int64_t size = element_bytes(source.dtype);
            runs = together ? 1 : int(channels);
            start = static_cast<const char*>(source.data) + element(source, image, 0, y, x) * size;
            stride_c = source.stride_c * size;
            stride_h = source.stride_h * size;
            bytes = count * source.stride_w * size;
        }

        QKERNEL_INLINE void ask_for(int r) const {
#if defined(__GNUC__) || defined(__clang__)
            const char* from = start + r * stride_h;
            for (int c = 0; c < runs; ++c, from += stride_c)
                if (bytes == WHOLE)
                    for (int i = 0; i < WHOLE; i += 64) __builtin_prefetch(from + i);
                else
                    for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
#else
            (void)r;
#endif
        }

        int runs = 0;
        const char* start = nullptr;
        std::int64_t stride_c = 0, stride_h = 0, bytes = 0;
    };

    Part prediction, target;
};

// The CUDA kernels run on the CPU: one thread holds the 32 lanes of a warp. The module has the interface of
// qkernel._cuda, so that qkernel/engines/cuda.py works with it unchanged.
#include <limits>
#include <vector>

#include "../../csrc/cuda/arguments.h"

namespace py = pybind11;
using namespace qkernel::cuda;

namespace {

constexpr int lanes = 32;

struct HostRunner {
    template <class Body>
    void run(const Job& job) const {
        using S = typename Body::Scalar;
        std::vector<Chunk> memory(static_cast<std::size_t>((scratch_bytes<Body>(job) + 15) / 16 + 1));
        S* scratch = reinterpret_cast<S*>(memory.data());
        for (std::int64_t image = 0; image < job.images; ++image) {
            for (std::int64_t task = 0; task < job.tasks.inside; ++task) {
                // What is read before it is written shows.
                for (std::size_t i = 0; i < memory.size() * (16 / sizeof(S)); ++i)
                    scratch[i] = std::numeric_limits<S>::quiet_NaN();
                Body::template warp<lanes>(job, image, task, scratch);
            }
            if constexpr (Body::sees_outside)
                for (std::int64_t task = 0; task < job.tasks.outside; ++task)
                    outside_warp<S, Body::backward, lanes>(job, image, task);
        }
    }
};

struct HostBlock {
    int warps;

    void wait() const {}
    template <class Function>
    void each(Function function) const {
        for (int warp = 0; warp < warps; ++warp) function(warp);
    }
    template <class Function>
    void first(Function function) const {
        function();
    }
};

}  // namespace

PYBIND11_MODULE(cuda_on_cpu, m) {
    define_names(m);
    m.def("no_device", [] { return ""; });
    m.def("path", [](const Shape& shape, const TensorArgument& pred, const PixelArgument& pixel,
                     const DefinitionArgument& definition, const Settings& settings, bool backward) {
        Call call = call_of(shape, pred, pixel, definition, settings);
        call.job.gradient = call.job.pred;
        const char* names[] = {"direct", "spread", "staged", "loop"};
        return std::string(names[static_cast<int>(path_of(call.job, backward))]);
    });
    m.def("divide", [](std::uint32_t a, std::uint32_t b) {
        return divide_by(Divisor(b), Lanes<std::uint32_t, 1>(a)).v[0];
    });
    // The sum of what the threads have of the numbers: in float if not `wide`.
    m.def("sum_of_parts", [](const std::vector<double>& numbers, int shift, bool wide) {
        const auto total = [&](auto tag) {
            using S = decltype(tag);
            std::vector<Several<S>> memory(numbers.size() / Several<S>::count + 1);
            S* const data = memory[0].v;
            // What is read past the end must not show.
            for (std::size_t i = 0; i < memory.size() * Several<S>::count; ++i)
                data[i] = i < numbers.size() ? static_cast<S>(numbers[i]) : std::numeric_limits<S>::quiet_NaN();
            double sum = 0;
            for (std::uint32_t first = 0; first < 1u << shift; first += lanes) {
                const auto part = lane_ids<lanes>() + Lanes<std::uint32_t, lanes>(first);
                const auto sums = part_of_sum(data, Lanes<std::int64_t, lanes>(0),
                                              static_cast<std::int64_t>(numbers.size()), part, shift);
                for (int i = 0; i < lanes; ++i)
                    if (part.v[i] < 1u << shift) sum += sums.v[i];
            }
            return sum;
        };
        return wide ? total(double{}) : total(float{});
    });
    m.def("forward", [](const Shape& shape, const TensorArgument& pred, const PixelArgument& pixel,
                        const DefinitionArgument& definition, const Settings& settings, std::tuple<int, std::uintptr_t>,
                        std::uintptr_t workspace, std::uintptr_t value, std::uintptr_t terms) {
        Call call = call_of(shape, pred, pixel, definition, settings);
        plan(call, false);
        place_sums(call.job, reinterpret_cast<void*>(workspace));
        HostRunner runner;
        run<false>(call.job, runner);
        const Combination combination{call.weight, call.reduction, reinterpret_cast<void*>(value),
                                      reinterpret_cast<void*>(terms)};
        double shared[combine_scratch];
        // What is read before it is written shows.
        for (double& x : shared) x = std::numeric_limits<double>::quiet_NaN();
        const HostBlock block{warps_to_combine(call.job)};
        int shift = 0;
        while (1 << shift < block.warps) ++shift;
        if (is_wide(call.job))
            combine<double, lanes>(call.job, combination, shared, shift, block);
        else
            combine<float, lanes>(call.job, combination, shared, shift, block);
    });
    m.def("backward", [](const Shape& shape, const TensorArgument& pred, const PixelArgument& pixel,
                         const DefinitionArgument& definition, const Settings& settings,
                         std::tuple<int, std::uintptr_t>, std::uintptr_t grad_output, const TensorArgument& gradient) {
        Call call = call_of(shape, pred, pixel, definition, settings);
        call.job.grad_output = reinterpret_cast<const void*>(grad_output);
        call.job.gradient = image_of(gradient);
        plan(call, true);
        HostRunner runner;
        run<true>(call.job, runner);
    });
}

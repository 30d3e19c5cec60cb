// qkernel._C: the C++ engine on raw pointers. Knows nothing of torch; the tensors' checks are made in Python.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>

#include "cpu/engine.h"
#include "cpu/pages.h"
#include "cpu/parallel.h"

namespace py = pybind11;
using namespace qkernel;
using namespace qkernel::cpu;

namespace {

using Shape = std::array<std::int64_t, 4>;

// (address, dtype number, strides in elements) of an N x C x H x W tensor.
using Tensor = std::tuple<std::uintptr_t, int, Shape>;

// (formula, patch_size, threshold, smoothing, data_range, sobel) of a definition.
using Definition = std::tuple<int, int, double, double, double, bool>;

// (number of the pixel term, charbonnier_eps)
using PixelTerm = std::tuple<int, double>;

// (weight, reduction, threads, simd)
using Settings = std::tuple<double, int, int, int>;

Image image_of(const Tensor& tensor) {
    const auto& [address, dtype, strides] = tensor;
    return {reinterpret_cast<void*>(address), static_cast<Dtype>(dtype), strides[0], strides[1], strides[2],
            strides[3]};
}

void set_grid(Job& job, std::uintptr_t offset) {
    const std::int64_t n = job.patch_size;
    if (offset) {
        job.top = reinterpret_cast<const std::int32_t*>(offset)[0];
        job.left = reinterpret_cast<const std::int32_t*>(offset)[1];
    }
    if (job.top < 0 || job.top >= n || job.top + n > job.height || job.left < 0 || job.left >= n ||
        job.left + n > job.width)
        throw std::invalid_argument("offset (" + std::to_string(job.top) + ", " + std::to_string(job.left) +
                                    ") does not leave a whole patch of " + std::to_string(n) + " x " +
                                    std::to_string(n) + " in an image of " + std::to_string(job.height) + " x " +
                                    std::to_string(job.width) + ", or is not below the patch size");
    job.rows = (job.height - job.top) / n;
    job.columns = (job.width - job.left) / n;
}

Call make_call(const Shape& shape, const Tensor& pred, const Tensor& target, const Definition& definition,
               const PixelTerm& pixel, std::uintptr_t offset, const Settings& settings) {
    Call call;
    Job& job = call.job;
    job.images = shape[0];
    job.channels = shape[1];
    job.height = shape[2];
    job.width = shape[3];
    job.pred = image_of(pred);
    job.target = image_of(target);
    const auto& [formula, patch_size, threshold, smoothing, data_range, sobel] = definition;
    job.patch_size = patch_size;
    job.sobel = sobel;
    job.measure = {static_cast<Formula>(formula), threshold, smoothing, 1 / data_range, 0};
    job.pixel = static_cast<Pixel>(std::get<0>(pixel));
    job.charbonnier_eps = std::get<1>(pixel);
    set_grid(job, offset);
    int reduction, simd;
    std::tie(call.weight, reduction, call.threads, simd) = settings;
    call.reduction = static_cast<Reduction>(reduction);
    call.simd = static_cast<Simd>(simd);
    if (call.simd > best_simd()) throw std::invalid_argument("this processor does not have that instruction set");
    return call;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "The C++ engine of qkernel.";
    m.attr("float32") = static_cast<int>(Dtype::float32);
    m.attr("float64") = static_cast<int>(Dtype::float64);
    m.attr("bfloat16") = static_cast<int>(Dtype::bfloat16);
    m.attr("float16") = static_cast<int>(Dtype::float16);
    m.attr("formulas") = py::make_tuple("zhu2010", "mmsp2024", "pythonq");
    m.attr("pixel_terms") = py::make_tuple("none", "l1", "mse", "charbonnier");
    m.attr("reductions") = py::make_tuple("mean", "sum", "none");
    m.attr("simd_levels") = py::make_tuple("portable", "avx2", "avx512");
    m.attr("best_simd") = static_cast<int>(best_simd());
    m.def("thread_backend", &thread_backend);
    m.def("prefer_large_pages", [](std::uintptr_t address, std::size_t bytes) {
        prefer_large_pages(reinterpret_cast<void*>(address), bytes);
    });

    m.def("forward", [](const Shape& shape, const Tensor& pred, const Tensor& target, const Definition& definition,
                        const PixelTerm& pixel, std::uintptr_t offset, const Settings& settings,
                        std::uintptr_t value, std::uintptr_t terms, bool wide) {
        Call call = make_call(shape, pred, target, definition, pixel, offset, settings);
        py::gil_scoped_release release;
        forward(call, reinterpret_cast<void*>(value), reinterpret_cast<void*>(terms), wide);
    });
    m.def("backward", [](const Shape& shape, const Tensor& pred, const Tensor& target, const Definition& definition,
                         const PixelTerm& pixel, std::uintptr_t offset, const Settings& settings,
                         std::uintptr_t grad_output, const Tensor& gradient, bool wide) {
        Call call = make_call(shape, pred, target, definition, pixel, offset, settings);
        call.job.gradient = image_of(gradient);
        py::gil_scoped_release release;
        backward(call, reinterpret_cast<const void*>(grad_output), wide);
    });
}

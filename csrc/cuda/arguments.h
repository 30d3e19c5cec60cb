// What Python hands over, as a call. The tensors' checks are made there.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <tuple>

#include "dispatch.h"

namespace qkernel::cuda {

using Shape = std::array<std::int64_t, 4>;

// (address, dtype number, strides in elements) of an N x C x H x W tensor.
using TensorArgument = std::tuple<std::uintptr_t, int, Shape>;

// (formula, patch_size, threshold, smoothing, data_range, sobel) of a definition.
using DefinitionArgument = std::tuple<int, int, double, double, double, bool>;

// (number of the pixel term, charbonnier_eps, the target)
using PixelArgument = std::tuple<int, double, TensorArgument>;

// (address of two int32 or 0, weight, reduction)
using Settings = std::tuple<std::uintptr_t, double, int>;

inline Image image_of(const TensorArgument& tensor) {
    const auto& [address, dtype, strides] = tensor;
    return {reinterpret_cast<void*>(address), static_cast<Dtype>(dtype), strides[0], strides[1], strides[2],
            strides[3]};
}

inline Call call_of(const Shape& shape, const TensorArgument& pred, const PixelArgument& pixel,
                    const DefinitionArgument& definition, const Settings& settings) {
    Call call;
    Job& job = call.job;
    job.images = shape[0];
    job.channels = shape[1];
    job.height = shape[2];
    job.width = shape[3];
    job.pred = image_of(pred);
    job.pixel = static_cast<Pixel>(std::get<0>(pixel));
    call.charbonnier_eps = std::get<1>(pixel);
    job.target = image_of(std::get<2>(pixel));
    int formula, reduction;
    std::tie(formula, job.patch_size, call.threshold, call.smoothing, call.data_range, job.sobel) = definition;
    call.formula = static_cast<Formula>(formula);
    std::uintptr_t offset;
    std::tie(offset, call.weight, reduction) = settings;
    job.offset = reinterpret_cast<const std::int32_t*>(offset);
    call.reduction = static_cast<Reduction>(reduction);
    return call;
}

// The numbers of names, which Python looks up here.
inline void define_names(pybind11::module_& m) {
    namespace py = pybind11;
    m.attr("float32") = static_cast<int>(Dtype::float32);
    m.attr("float64") = static_cast<int>(Dtype::float64);
    m.attr("bfloat16") = static_cast<int>(Dtype::bfloat16);
    m.attr("float16") = static_cast<int>(Dtype::float16);
    m.attr("formulas") = py::make_tuple("zhu2010", "mmsp2024", "pythonq");
    m.attr("pixel_terms") = py::make_tuple("none", "l1", "mse", "charbonnier");
    m.attr("reductions") = py::make_tuple("mean", "sum", "none");
    m.attr("largest_patch") = largest_patch;
    m.def("few_patches", [] { return few_patches.load(); });
    // Of a multiprocessor. Returns what they were.
    m.def("set_few_patches", [](std::int64_t patches) { return few_patches.exchange(patches); });
    m.def("workspace_bytes", [](const Shape& shape, const TensorArgument& pred, const PixelArgument& pixel,
                                const DefinitionArgument& definition, const Settings& settings) {
        Call call = call_of(shape, pred, pixel, definition, settings);
        plan(call, false);
        return workspace_bytes(call.job);
    });
}

}  // namespace qkernel::cuda

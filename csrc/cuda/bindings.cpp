// qkernel._cuda: the CUDA engine on raw pointers. Knows nothing of torch.
#include "arguments.h"
#include "engine.h"

namespace py = pybind11;
using namespace qkernel::cuda;

namespace {

// (device number, stream)
using PlaceArgument = std::tuple<int, std::uintptr_t>;

Place place_of(const PlaceArgument& place) {
    return {std::get<0>(place), reinterpret_cast<void*>(std::get<1>(place))};
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "The CUDA engine of qkernel.";
    define_names(m);
    m.attr("toolkit") = std::to_string(toolkit_version() / 1000) + "." + std::to_string(toolkit_version() % 1000 / 10);
    m.attr("architectures") = QKERNEL_CUDA_ARCHITECTURES;
    m.def("no_device", &no_device);
    m.def("forward", [](const Shape& shape, const TensorArgument& pred, const PixelArgument& pixel,
                        const DefinitionArgument& definition, const Settings& settings, const PlaceArgument& place,
                        std::uintptr_t workspace, std::uintptr_t value, std::uintptr_t terms) {
        Call call = call_of(shape, pred, pixel, definition, settings);
        const py::gil_scoped_release release;
        forward(call, place_of(place), reinterpret_cast<void*>(workspace), reinterpret_cast<void*>(value),
                reinterpret_cast<void*>(terms));
    });
    m.def("backward", [](const Shape& shape, const TensorArgument& pred, const PixelArgument& pixel,
                         const DefinitionArgument& definition, const Settings& settings, const PlaceArgument& place,
                         std::uintptr_t grad_output, const TensorArgument& gradient) {
        Call call = call_of(shape, pred, pixel, definition, settings);
        call.job.grad_output = reinterpret_cast<const void*>(grad_output);
        call.job.gradient = image_of(gradient);
        const py::gil_scoped_release release;
        backward(call, place_of(place));
    });
}

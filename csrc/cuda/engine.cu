// The kernels' launches.
#include <cuda_runtime.h>

#include "engine.h"

namespace qkernel::cuda {
namespace {

void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess)
        throw std::runtime_error(std::string("CUDA error in ") + what + ": " + cudaGetErrorString(error));
}

// The tensors' device is the current one as long as this lives.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        changed_ = device != before_;
        if (changed_) check(cudaSetDevice(device), "cudaSetDevice");
    }
    ~DeviceGuard() {
        if (changed_) cudaSetDevice(before_);
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int before_ = 0;
    bool changed_ = false;
};

// Compiled once, not into every kernel.
template <class S, bool BACKWARD>
__device__ __noinline__ void outside_task(const Job& job, std::uint32_t image, std::int64_t task) {
    outside_warp<S, BACKWARD, 1>(job, image, task);
}

template <class Body>
__global__ void __launch_bounds__(Body::threads, Body::blocks)
    patch_kernel(const __grid_constant__ Job job, std::uint32_t blocks_per_image, std::uint32_t scratch) {
    extern __shared__ __align__(16) char shared[];
    const std::uint32_t image = blockIdx.x / blocks_per_image, warp = threadIdx.x / 32;
    const std::int64_t task = std::int64_t(blockIdx.x - image * blocks_per_image) * (blockDim.x / 32) + warp;
    if (task < job.tasks.inside)
        Body::template warp<1>(job, image, task, reinterpret_cast<typename Body::Scalar*>(shared + warp * scratch));
    else if (task < std::int64_t(job.tasks.inside) + job.tasks.outside)
        outside_task<typename Body::Scalar, Body::backward>(job, image, task - job.tasks.inside);
}

struct ThreadBlock {
    template <class Function>
    __device__ __forceinline__ void each(Function function) const {
        function(static_cast<int>(threadIdx.x / 32));
        __syncthreads();
    }
    template <class Function>
    __device__ __forceinline__ void first(Function function) const {
        if (threadIdx.x < 32) function();
        __syncthreads();
    }
};

template <class S>
__global__ void __launch_bounds__(32 * combine_warps)
    combine_kernel(const __grid_constant__ Job job, const __grid_constant__ Combination call) {
    __shared__ double shared[3 * combine_warps];
    combine<S, 1>(job, call, shared, ThreadBlock{});
}

struct Launcher {
    cudaStream_t stream;

    template <class Body>
    void run(const Job& job) const {
        const std::int64_t scratch = scratch_bytes<Body>(job), available = 48 * 1024;
        const std::int64_t warps = scratch * (Body::threads / 32) <= available ? Body::threads / 32 : 1;
        const std::int64_t tasks = std::int64_t(job.tasks.inside) + job.tasks.outside;
        const std::int64_t per_image = (tasks + warps - 1) / warps;
        if (job.images * per_image == 0) return;
        if (job.images * per_image >= std::int64_t(1) << 31)
            throw std::invalid_argument("the images have more patches than one launch can take: split the batch");
        patch_kernel<Body><<<static_cast<unsigned>(job.images * per_image), static_cast<unsigned>(32 * warps),
                             static_cast<std::size_t>(warps * scratch), stream>>>(
            job, static_cast<std::uint32_t>(per_image), static_cast<std::uint32_t>(scratch));
        check(cudaGetLastError(), "the launch of a patch kernel");
    }
};

}  // namespace

void forward(Call& call, const Place& place, void* workspace, void* value, void* terms) {
    plan(call, false);
    place_sums(call.job, workspace);
    const DeviceGuard guard(place.device);
    Launcher launcher{static_cast<cudaStream_t>(place.stream)};
    run<false>(call.job, launcher);
    const Combination combination{call.weight, call.reduction, value, terms};
    if (is_wide(call.job))
        combine_kernel<double><<<1, 32 * combine_warps, 0, launcher.stream>>>(call.job, combination);
    else
        combine_kernel<float><<<1, 32 * combine_warps, 0, launcher.stream>>>(call.job, combination);
    check(cudaGetLastError(), "the launch of the combining kernel");
}

void backward(Call& call, const Place& place) {
    plan(call, true);
    const DeviceGuard guard(place.device);
    Launcher launcher{static_cast<cudaStream_t>(place.stream)};
    run<true>(call.job, launcher);
}

int toolkit_version() { return CUDART_VERSION; }

std::string no_device() {
    int count = 0, driver = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0) return "";
    cudaGetLastError();  // not to be found again by the next launch
    const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no CUDA device: there is no NVIDIA driver";
    if (error == cudaErrorInsufficientDriver)
        return "the NVIDIA driver is older than the toolkit: it supports CUDA " + version(driver) +
               ", the kernels were built with " + version(CUDART_VERSION) + "; update the driver";
    if (error == cudaErrorNoDevice || error == cudaSuccess) return "no CUDA device";
    return std::string("no CUDA device: ") + cudaGetErrorString(error);
}

}  // namespace qkernel::cuda

// The kernels' launches.
#include <cuda_runtime.h>

#include "engine.h"

namespace qkernel::cuda {
namespace {

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // it has been told: the next launch is not to be taken for it
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

template <class Body>
__global__ void __launch_bounds__(Body::threads, Body::blocks)
    patch_kernel(const __grid_constant__ Job job, std::int64_t first_image, std::uint32_t scratch) {
    extern __shared__ __align__(16) char shared[];
    const std::uint32_t warp = threadIdx.x / 32, number = blockIdx.x * (blockDim.x / 32) + warp;
    // The last images and patches that the forward pass read lie in the L2 cache: the backward pass, which mostly
    // follows at once, begins with them.
    const std::int64_t image = first_image + (Body::backward ? gridDim.y - 1 - blockIdx.y : blockIdx.y);
    // What lies outside the patches takes a warp longest: begun last, all else would be done and wait for it.
    // Their numbers, less than 2^31, wrap around to more.
    const std::uint32_t outside = Body::sees_outside ? job.tasks.outside : 0, task = number - outside;
    if (task < job.tasks.inside)
        Body::template warp<1>(job, image, Body::backward ? job.tasks.inside - 1 - task : task,
                               reinterpret_cast<typename Body::Scalar*>(shared + warp * scratch));
    else if (Body::sees_outside && number < outside)
        outside_warp<typename Body::Scalar, Body::backward, 1>(job, image, number);
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
    }
};

template <class S>
__global__ void __launch_bounds__(32 * combine_warps, 1)
    combine_kernel(const __grid_constant__ Job job, const __grid_constant__ Combination call) {
    __shared__ double shared[combine_scratch];
    combine<S, 1>(job, call, shared, ThreadBlock{});
}

struct Launcher {
    cudaStream_t stream;

    template <class Body>
    void run(const Job& job) const {
        const std::int64_t scratch = scratch_bytes<Body>(job), available = 48 * 1024;
        const std::int64_t tasks = std::int64_t(job.tasks.inside) + job.tasks.outside;
        // Fewer than four warps for each of some 130 multiprocessors are dealt out one by one, so that all have work.
        const bool few = tasks * job.images <= 512;
        const std::int64_t warps = few || scratch * (Body::threads / 32) > available ? 1 : Body::threads / 32;
        const std::int64_t blocks = (tasks + warps - 1) / warps, most_images = 65535;
        if (blocks == 0) return;
        for (std::int64_t first = 0; first < job.images; first += most_images) {
            const std::int64_t left_over = job.images - first;
            const std::int64_t count = left_over < most_images ? left_over : most_images;
            const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(count));
            patch_kernel<Body><<<grid, static_cast<unsigned>(32 * warps), static_cast<std::size_t>(warps * scratch),
                                 stream>>>(job, first, static_cast<std::uint32_t>(scratch));
            check(cudaGetLastError(), "the launch of a patch kernel");
        }
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

// The kernels' launches.
//
// Compiled several times, each for a part of the kernels, side by side; or once, for all of them, without QKERNEL_PART.
#include <cuda_runtime.h>

#include <array>
#include <atomic>
#include <type_traits>

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

// From compute capability 9.0 on kernels that `come early` are launched, and their blocks take their places, as soon as
// the kernel before lets them: then the launch, the parameters' way to the multiprocessors and the addresses cost no
// time of their own. There every warp with work waits until it has ended, before it reads or writes anything, so that
// when a kernel has ended, all before it have. A forward pass lets the combining kernel come, and that a backward pass
// of few patches, when all their blocks have begun; other kernels do when they have ended.
//
// The combining kernel alone reads something before it waits, the offset: no forward pass with an offset comes early,
// so that was written before the forward pass began.
__device__ __forceinline__ void let_the_next_kernel_come() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

template <class Body>
__global__ void __launch_bounds__(Body::threads, Body::blocks)
    patch_kernel(std::int64_t first_image, std::uint32_t scratch, const __grid_constant__ Job job) {
    if (!Body::backward) let_the_next_kernel_come();
    extern __shared__ __align__(16) char shared[];
    const std::uint32_t warp = threadIdx.x / 32, number = blockIdx.x * (blockDim.x / 32) + warp;
    // The last images and patches that the forward pass read lie in the L2 cache: the backward pass, which mostly
    // follows at once, begins with them.
    const std::int64_t image = first_image + (Body::backward ? gridDim.y - 1 - blockIdx.y : blockIdx.y);
    // What lies outside the patches takes a warp longest: begun last, all else would be done and wait for it.
    // Their numbers, less than 2^31, wrap around to more.
    const std::uint32_t outside = Body::sees_outside ? job.tasks.outside : 0, task = number - outside;
    if (task < job.tasks.inside) {
        Body::template warp<1>(job, image, Body::backward ? job.tasks.inside - 1 - task : task,
                               reinterpret_cast<typename Body::Scalar*>(shared + warp * scratch));
    } else if (Body::sees_outside && number < outside) {
        if (Body::comes_early) wait_for_the_kernel_before();
        outside_warp<typename Body::Scalar, Body::backward, 1>(job, image, number);
    }
}

// Shared memory of a multiprocessor that all kernels ask for that it suffices, the rest of which is L1 cache: where one
// kernel's share differs from the next one's, a multiprocessor changes over only when it is idle. For `Loop` and most
// of `Staged` it does not suffice.
constexpr int common_shared = 32 * 1024;

// A block takes up to 1 KB beside its own.
template <class Body>
constexpr bool asks_for_common_shared =
    Body::scratch >= 0 && Body::blocks * (Body::threads / 32 * Body::scratch + 1024) <= common_shared;

int attribute_of(cudaDeviceAttr attribute, int device) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
    return value;
}

// Settles what there is to settle once for a kernel on a device, and returns whether it may come early: what the driver
// compiles from PTX for an older architecture would not wait.
template <auto Kernel, bool COMMON_SHARED>
bool prepare(int device) {
    enum : unsigned char { unknown, in_turn, early };
    static std::array<std::atomic<unsigned char>, 64> known{};
    const bool remembered = device >= 0 && device < static_cast<int>(known.size());
    const unsigned char state = remembered ? known[static_cast<std::size_t>(device)].load() : unknown;
    if (state != unknown) return state == early;
    if (COMMON_SHARED) {
        const int all = attribute_of(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
        check(cudaFuncSetAttribute(Kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 100 * common_shared / all),
              "cudaFuncSetAttribute");
    }
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, Kernel), "cudaFuncGetAttributes");
    int driver = 0;
    check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    // From 12.3 on it can be captured into a graph.
    const bool result = attributes.ptxVersion >= 90 && driver >= 12030;
    if (remembered) known[static_cast<std::size_t>(device)] = result ? early : in_turn;
    return result;
}

// With `early` it comes, if it can, before the kernel before it has ended, for which it waits itself.
template <auto Kernel, bool COMMON_SHARED, class... Arguments>
void launch(const Place& place, bool early, dim3 grid, unsigned threads, std::size_t shared, const char* what,
            const Arguments&... arguments) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t configuration{};
    configuration.gridDim = grid;
    configuration.blockDim = dim3(threads);
    configuration.dynamicSmemBytes = shared;
    configuration.stream = static_cast<cudaStream_t>(place.stream);
    configuration.attrs = &attribute;
    configuration.numAttrs = prepare<Kernel, COMMON_SHARED>(place.device) && early ? 1 : 0;
    // Not by the template cudaLaunchKernelEx, which CUDA 12.0 keeps from Visual C++.
    static_assert(std::is_same_v<decltype(Kernel), void (*)(Arguments...)>, "the kernel's own types");
    void* addresses[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
    check(cudaLaunchKernelExC(&configuration, reinterpret_cast<const void*>(Kernel), addresses), what);
}

// Which part a kernel is in: backward, of those that take longest to compile, one has Central's and one Sobel's.
template <class Body>
constexpr int part_of = Body::backward ? 3 : 0;
template <class Storage, Pixel PIXEL, int CHANNELS>
constexpr int part_of<Direct<Central<8>, Storage, true, PIXEL, CHANNELS>> = 1;
template <class Storage, Pixel PIXEL, int CHANNELS>
constexpr int part_of<Direct<Sobel<8>, Storage, true, PIXEL, CHANNELS>> = 2;

#ifdef QKERNEL_PART
template <class Body>
constexpr bool is_here = part_of<Body> == QKERNEL_PART;
#else
template <class Body>
constexpr bool is_here = true;
#endif

struct Launcher {
    const Place& place;

    template <class Body>
    void run(const Job& job) const {
        if constexpr (is_here<Body>) launch_all<Body>(job);
    }

  private:
    template <class Body>
    void launch_all(const Job& job) const {
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
            launch<patch_kernel<Body>, asks_for_common_shared<Body>>(
                place, Body::comes_early, grid, static_cast<unsigned>(32 * warps),
                static_cast<std::size_t>(warps * scratch), "the launch of a patch kernel", first,
                static_cast<std::uint32_t>(scratch), job);
        }
    }
};

}  // namespace

#ifdef QKERNEL_PART
template <>
void launch_part<QKERNEL_PART>(const Job& job, const Place& place) {
    Launcher launcher{place};
    run<(QKERNEL_PART > 0)>(job, launcher);
}
#endif

// The calls, and the combining kernel.
#if !defined(QKERNEL_PART) || QKERNEL_PART == 0
namespace {

struct ThreadBlock {
    __device__ __forceinline__ void wait() const { wait_for_the_kernel_before(); }
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
    combine_kernel(int shift, const __grid_constant__ Combination call, const __grid_constant__ Job job) {
    __shared__ double shared[combine_scratch];
    let_the_next_kernel_come();
    combine<S, 1>(job, call, shared, shift, ThreadBlock{});
}

template <auto Value>
struct Constant {
    static constexpr auto value = Value;
};

template <bool BACKWARD>
void launch_planned(const Job& job, const Place& place) {
#ifdef QKERNEL_PART
    if (!BACKWARD) return launch_part<0>(job, place);
    launch_part<1>(job, place);
    launch_part<2>(job, place);
    launch_part<3>(job, place);
#else
    Launcher launcher{place};
    run<BACKWARD>(job, launcher);
#endif
}

}  // namespace

void forward(Call& call, const Place& place, void* workspace, void* value, void* terms) {
    plan(call, false);
    place_sums(call.job, workspace);
    const DeviceGuard guard(place.device);
    launch_planned<false>(call.job, place);
    const Combination combination{call.weight, call.reduction, value, terms};
    const int warps = warps_to_combine(call.job);
    int shift = 0;
    while (1 << shift < warps) ++shift;
    // Without images the kernel before it is somebody else's.
    const bool early = call.job.images > 0;
    const auto finish = [&](auto kernel) {
        launch<decltype(kernel)::value, true>(place, early, dim3(1), static_cast<unsigned>(32 * warps), 0,
                                              "the launch of the combining kernel", shift, combination, call.job);
    };
    if (is_wide(call.job))
        finish(Constant<combine_kernel<double>>{});
    else
        finish(Constant<combine_kernel<float>>{});
}

void backward(Call& call, const Place& place) {
    call.job.multiprocessors = attribute_of(cudaDevAttrMultiProcessorCount, place.device);
    plan(call, true);
    const DeviceGuard guard(place.device);
    launch_planned<true>(call.job, place);
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

#endif

}  // namespace qkernel::cuda

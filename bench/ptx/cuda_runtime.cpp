// The CUDA runtime, as far as qkernel's engine asks for it: launches go to a function, given by `set_launch`.
//
// nvcc's host code registers each kernel under the name that it has in PTX, and launches it by its handle.
#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace {

struct Extent {
    unsigned x, y, z;
};

struct Configuration {
    Extent grid, block;
    std::size_t shared;
    void* stream;
};

// 0, or an error that the next cudaGetLastError tells.
using Launch = int (*)(const char* kernel, const unsigned* grid, const unsigned* block, std::size_t shared,
                       void** arguments);

Launch launch_function = nullptr;
int last_error = 0;
int ptx_version = 0;

std::map<const void*, std::string>& names() {
    static std::map<const void*, std::string> map;
    return map;
}

std::map<std::string, unsigned>& early_launches() {
    static std::map<std::string, unsigned> map;
    return map;
}

std::vector<Configuration>& configurations() {
    static std::vector<Configuration> stack;
    return stack;
}

int launch(const void* kernel, Extent grid, Extent block, void** arguments, std::size_t shared) {
    const unsigned of_grid[] = {grid.x, grid.y, grid.z}, of_block[] = {block.x, block.y, block.z};
    const auto found = names().find(kernel);
    last_error = found == names().end() || !launch_function
                     ? 1
                     : launch_function(found->second.c_str(), of_grid, of_block, shared, arguments);
    return last_error;
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void set_launch(Launch function) { launch_function = function; }
// What the kernels' code claims to be made from: 0, so that none may be launched early, unless a test wants it.
EXPORTED void set_ptx_version(int version) { ptx_version = version; }
// Attributes of a kernel's last launch; -1 without one.
EXPORTED int early(const char* kernel) {
    const auto found = early_launches().find(kernel);
    return found == early_launches().end() ? -1 : static_cast<int>(found->second);
}

extern "C" {

void** __cudaRegisterFatBinary(void*) {
    static void* handle = nullptr;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, void*, void*, void*, void*, int*) {
    names()[host] = name;
}
char __cudaInitModule(void**) { return 1; }

unsigned __cudaPushCallConfiguration(Extent grid, Extent block, std::size_t shared, void* stream) {
    configurations().push_back({grid, block, shared, stream});
    return 0;
}
int __cudaPopCallConfiguration(Extent* grid, Extent* block, std::size_t* shared, void* stream) {
    const Configuration call = configurations().back();
    configurations().pop_back();
    *grid = call.grid;
    *block = call.block;
    *shared = call.shared;
    *static_cast<void**>(stream) = call.stream;
    return 0;
}

// Of CUDA 13 and of CUDA 12.
int __cudaGetKernel(const void** handle, const void* host) {
    *handle = host;
    return 0;
}
int __cudaLaunchKernel(const void* kernel, Extent grid, Extent block, void** arguments, std::size_t shared, void*) {
    return launch(kernel, grid, block, arguments, shared);
}
int cudaLaunchKernel(const void* host, Extent grid, Extent block, void** arguments, std::size_t shared, void*) {
    return launch(host, grid, block, arguments, shared);
}

// cudaLaunchConfig_t. Of its attributes only their number is kept: kernels run one after the other here.
struct LaunchConfiguration {
    Extent grid, block;
    std::size_t shared;
    void* stream;
    void* attributes;
    unsigned count;
};
int cudaLaunchKernelExC(const LaunchConfiguration* call, const void* host, void** arguments) {
    early_launches()[names()[host]] = call->count;
    return launch(host, call->grid, call->block, arguments, call->shared);
}
int cudaFuncSetAttribute(const void*, int, int) { return 0; }
// cudaFuncAttributes, as far as the PTX version.
struct Attributes {
    std::size_t shared, constant, local;
    int threads, registers, ptx_version;
};
int cudaFuncGetAttributes(Attributes* attributes, const void*) {
    attributes->ptx_version = ptx_version;
    return 0;
}
int cudaDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 16 ? 132 : 100 * 1024;  // multiprocessors, or bytes of their shared memory
    return 0;
}

int cudaGetLastError() {
    const int error = last_error;
    last_error = 0;
    return error;
}
const char* cudaGetErrorString(int) { return "the kernel was stopped"; }
int cudaGetDevice(int* device) {
    *device = 0;
    return 0;
}
int cudaSetDevice(int) { return 0; }
int cudaGetDeviceCount(int* count) {
    *count = 1;
    return 0;
}
int cudaDriverGetVersion(int* version) {
    *version = 99000;
    return 0;
}
}

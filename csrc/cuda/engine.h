// The CUDA engine: one call of it, and what it was built for and finds.
#pragma once

#include <string>

#include "dispatch.h"

namespace qkernel::cuda {

// Where a call runs: the tensors' device, and the caller's stream on it.
struct Place {
    int device = 0;
    void* stream = nullptr;
};

// weight * Q, or with a pixel term: that - weight * Q, and both terms. The workspace has workspace_bytes(call.job) of
// the planned call.
void forward(Call& call, const Place& place, void* workspace, void* value, void* terms);

// The gradient into job.gradient, with job.grad_output.
void backward(Call& call, const Place& place);

// For engine.cu itself, which is compiled in parts: launches the planned call's kernel, if it is in this part. The
// first has the forward passes, the others the backward passes.
template <int PART>
void launch_part(const Job& job, const Place& place);
template <>
void launch_part<0>(const Job& job, const Place& place);
template <>
void launch_part<1>(const Job& job, const Place& place);
template <>
void launch_part<2>(const Job& job, const Place& place);
template <>
void launch_part<3>(const Job& job, const Place& place);

// Why no kernel can run here; empty if one can.
std::string no_device();

int toolkit_version();  // 13000 for 13.0

}  // namespace qkernel::cuda

// The CPU engine: which kernels there are, and one call of them.
#pragma once

#include "job.h"

namespace qkernel::cpu {

enum class Simd : int { portable = 0, avx2 = 1, avx512 = 2 };
enum class Reduction : int { mean = 0, sum = 1, none = 2 };

// The best that this processor and its operating system support.
Simd best_simd();

struct Call {
    Job job;
    double weight = 1;
    Reduction reduction = Reduction::mean;
    int threads = 1;
    Simd simd = Simd::portable;
};

// weight * Q, or with a pixel term: that - weight * Q, and both terms (pixel first) if `terms` is given. Each is one
// number or, not reduced, one per image; double if `wide`, else float.
void forward(Call& call, void* value, void* terms, bool wide);

// The gradient into job.gradient; `grad_output` is one number, or one per image if not reduced.
void backward(Call& call, const void* grad_output, bool wide);

}  // namespace qkernel::cpu

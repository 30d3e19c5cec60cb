// The CPU engine for x86 with AVX2, FMA and F16C; compiled with those, and called only where they are.
// Everything is in an unnamed namespace: a function shared with another instruction set could be linked from the
// wrong one. For the same reason nothing of the C++ standard library that is inline is used.
#include <immintrin.h>
#include <math.h>

#include <cstring>

#include "job.h"

namespace qkernel::cpu {
namespace {
#include "vec_avx2.h"
// clang-format off: the order matters
#include "rows.h"
#include "ahead.h"
#include "pixels.h"
#include "gradient.h"
#include "strip.h"
}  // namespace

Strip avx2_strip(const Job& job, bool backward) { return strip_for<Avx2Float, Avx2Double>(job, backward); }

}  // namespace qkernel::cpu

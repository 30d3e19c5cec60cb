// The CPU engine for x86 with AVX-512 F, BW, DQ and VL; compiled with those, and called only where they are.
// Everything is in an unnamed namespace: a function shared with another instruction set could be linked from the
// wrong one. For the same reason nothing of the C++ standard library that is inline is used.
#include <immintrin.h>
#include <math.h>

#include <cstring>

#include "job.h"

namespace qkernel::cpu {
namespace {
#include "vec_avx512.h"
// clang-format off: the order matters
#include "rows.h"
#include "ahead.h"
#include "pixels.h"
#include "gradient.h"
#include "strip.h"
}  // namespace

Strip avx512_strip(const Job& job, bool backward) { return strip_for<Avx512Float, Avx512Double>(job, backward); }

}  // namespace qkernel::cpu

// The CPU engine for any processor: SSE2, NEON or whatever the compiler's default is.
// Everything is in an unnamed namespace: a function shared with another instruction set could be linked from the
// wrong one. For the same reason nothing of the C++ standard library that is inline is used.
#include <math.h>

#include <cstring>

#include "job.h"

namespace qkernel::cpu {
namespace {
#include "vec_portable.h"
// clang-format off: the order matters
#include "rows.h"
#include "ahead.h"
#include "pixels.h"
#include "gradient.h"
#include "strip.h"
}  // namespace

Strip portable_strip(const Job& job, bool backward) { return strip_for<PortableVec<float>, PortableVec<double>>(job, backward); }

}  // namespace qkernel::cpu

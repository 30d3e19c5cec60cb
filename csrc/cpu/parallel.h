// Threads for the CPU engine: torch's own pool, or none of ours.
#pragma once

#include <cstdint>

namespace qkernel::cpu {

// Work on tasks [first, last) by thread number `thread`.
using Tasks = void (*)(void* context, int thread, std::int64_t first, std::int64_t last);

// Splits `count` tasks over at most `threads` threads. With one thread nothing but a call happens, so that forked
// processes (DataLoader workers) never touch a pool that did not survive the fork.
void parallel_for(int threads, std::int64_t count, Tasks tasks, void* context);

// What runs the threads: "OpenMP" (the runtime that torch has loaded) or "std::thread".
const char* thread_backend();

}  // namespace qkernel::cpu

#include "parallel.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace qkernel::cpu {
namespace {

// Linking an OpenMP runtime would bring a second pool into the process beside torch's, and twice the threads. So the
// entry points are looked up among the libraries already loaded: GNU's, which LLVM's and Intel's runtimes have too.
struct OpenMp {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*thread_number)() = nullptr;
    int (*thread_count)() = nullptr;

    static const OpenMp& loaded() {
        static const OpenMp found = [] {
            OpenMp omp;
#ifndef _WIN32
            omp.parallel = reinterpret_cast<decltype(omp.parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
            omp.thread_number = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
            omp.thread_count = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
#endif
            return omp;
        }();
        return found;
    }
    bool usable() const { return parallel && thread_number && thread_count; }
};

struct Share {
    Tasks tasks;
    void* context;
    std::int64_t count;

    void run(int thread, int threads) const {
        const std::int64_t first = count * thread / threads, last = count * (thread + 1) / threads;
        if (first < last) tasks(context, thread, first, last);
    }
};

}  // namespace

const char* thread_backend() { return OpenMp::loaded().usable() ? "OpenMP" : "std::thread"; }

void parallel_for(int threads, std::int64_t count, Tasks tasks, void* context) {
    threads = static_cast<int>(std::min<std::int64_t>(threads, count));
    Share share{tasks, context, count};
    if (threads <= 1) return share.run(0, 1);
    const OpenMp& omp = OpenMp::loaded();
    if (omp.usable()) {
        const auto body = [](void* data) {
            const OpenMp& runtime = OpenMp::loaded();
            // The runtime may grant fewer threads than asked for.
            static_cast<const Share*>(data)->run(runtime.thread_number(), runtime.thread_count());
        };
        omp.parallel(body, &share, static_cast<unsigned>(threads), 0);
        return;
    }
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread)
        others.emplace_back([&share, thread, threads] { share.run(thread, threads); });
    share.run(0, threads);
    for (auto& other : others) other.join();
}

}  // namespace qkernel::cpu

// What the operating system is told of a large piece of memory that is about to be written.
#pragma once

#include <cstddef>

namespace qkernel::cpu {

// Asks for large pages behind [start, start + bytes): a fresh gradient is otherwise handed out page by page of 4 KiB,
// and the interruptions take longer than computing it. A hint: nothing depends on it being taken, and it does nothing
// to memory that has been written before, or where the system has no such pages.
void prefer_large_pages(void* start, std::size_t bytes);

}  // namespace qkernel::cpu

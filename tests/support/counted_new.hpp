// Counts every call of operator new of a test program, on any thread, LibTorch's included. To be included by exactly
// one file of a program. Not under the address sanitizer, which has a new of its own.
#pragma once

#ifndef __SANITIZE_ADDRESS__

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace tenon::test {

inline std::atomic<std::int64_t> allocations{0};

inline void* counted_new(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), std::max<std::size_t>(bytes, 1)) != 0)
    throw std::bad_alloc();
  return memory;
}

} // namespace tenon::test

// The other forms of new call these.
void* operator new(std::size_t bytes) { return tenon::test::counted_new(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return tenon::test::counted_new(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

#endif

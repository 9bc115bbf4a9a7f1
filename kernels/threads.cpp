#include "kernels/threads.hpp"

#include <ATen/Parallel.h>

namespace tenon {

static_assert(_OPENMP, "this file is compiled with OpenMP");

void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain,
                  c10::function_ref<void(std::int64_t, std::int64_t)> each) {
  at::parallel_for(begin, end, grain, each);
}

} // namespace tenon

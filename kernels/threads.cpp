#include "kernels/threads.hpp"

#include <ATen/Parallel.h>
#include <algorithm>

namespace tenon {

static_assert(_OPENMP, "this file is compiled with OpenMP");

void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain,
                  c10::function_ref<void(std::int64_t, std::int64_t)> each) {
  if (end <= begin) return;
  const std::int64_t count = end - begin, least = std::max<std::int64_t>(grain, 1),
                     parts = std::clamp<std::int64_t>(count / least, 1, at::get_num_threads());
  at::parallel_for(0, parts, 1, [&](std::int64_t first, std::int64_t last) {
    each(begin + count * first / parts, begin + count * last / parts);
  });
}

} // namespace tenon

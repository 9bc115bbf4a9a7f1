// Work shared out among LibTorch's threads, for what computes beside its operators.
//
// at::parallel_for is a template: compiled without OpenMP it runs everything on the caller's thread, and says nothing.
// So it is compiled once, here, with OpenMP. Thread: any.
#pragma once

#include <c10/util/FunctionRef.h>

#include <cstdint>

namespace tenon {

// each(begin, end) for parts of [begin, end), none smaller than `grain` unless it is the only one; at the same time
// where LibTorch has several threads and the caller is no part of such work itself. Throws what a part threw.
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain,
                  c10::function_ref<void(std::int64_t, std::int64_t)> each);

} // namespace tenon

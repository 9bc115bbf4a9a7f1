// Cross-entropy of a row of logits, and its gradient in the row's place, with one pass over memory: the row is worked
// on in a cache, where plain operators would write and read the whole matrix four times.
//
//   loss = log sum exp(x) - x[target];   x becomes softmax(x), less 1 at the target
//
// Computed in float32, whatever the row is stored in. Thread: pure functions; any.
#pragma once

#include "kernels/cpu/kernels.hpp"

namespace tenon::cpu {

// scratch: count rounded up to a multiple of 64. Requires: 0 <= target < count.
float cross_entropy_row(const Kernels& kernels, float* row, std::int64_t count, std::int64_t target, float* scratch);
// The row in bfloat16.
float cross_entropy_row(const Kernels& kernels, std::uint16_t* row, std::int64_t count, std::int64_t target,
                        float* scratch);

constexpr std::int64_t cross_entropy_scratch(std::int64_t count) { return (count + 63) / 64 * 64; }

} // namespace tenon::cpu

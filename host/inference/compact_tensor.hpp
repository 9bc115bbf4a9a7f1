// float32 numbers in the fewest bytes that hold them bit for bit: int8 with a step for each group, as keys and values
// in int8 are; bfloat16; else as they are.
//
// Thread: pure functions; any.
#pragma once

#include <ATen/core/Tensor.h>

namespace tenon {

// numbers (..., n); of int8 also steps (..., n / group): a number is int8 times its group's step.
struct CompactTensor {
  at::Tensor numbers, steps;
};

// Tensors of other types stay what they are. Both are contiguous.
CompactTensor compact(const at::Tensor& value);

// Back to float32. Requires: steps, where there are any, are of the form above.
at::Tensor widened(const CompactTensor& tensor);

} // namespace tenon

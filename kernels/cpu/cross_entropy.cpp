#include "kernels/cpu/cross_entropy.hpp"

#include <cmath>
#include <cstring>

namespace tenon::cpu {
namespace {

// The row in scratch becomes its gradient.
float in_place(const Kernels& kernels, std::int64_t count, std::int64_t target, float* scratch) {
  const float at_target = scratch[target];
  float largest = 0, sum = 0;
  kernels.soften(scratch, count, cross_entropy_scratch(count), largest, sum, {});
  kernels.rows.scale(scratch, 1.0f / sum, count);
  scratch[target] -= 1.0f;
  return std::log(sum) + (largest - at_target);
}

} // namespace

float cross_entropy_row(const Kernels& kernels, float* row, std::int64_t count, std::int64_t target, float* scratch) {
  std::memcpy(scratch, row, static_cast<std::size_t>(count) * sizeof(float));
  const float loss = in_place(kernels, count, target, scratch);
  std::memcpy(row, scratch, static_cast<std::size_t>(count) * sizeof(float));
  return loss;
}

float cross_entropy_row(const Kernels& kernels, std::uint16_t* row, std::int64_t count, std::int64_t target,
                        float* scratch) {
  kernels.rows.widen(row, scratch, count);
  const float loss = in_place(kernels, count, target, scratch);
  kernels.round(scratch, count, row);
  return loss;
}

} // namespace tenon::cpu

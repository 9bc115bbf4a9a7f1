#include "host/inference/compact_tensor.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

constexpr std::int64_t kSmallestGroup = 32;

bool same_bits(const at::Tensor& a, const at::Tensor& b) { return at::equal(a.view(at::kInt), b.view(at::kInt)); }

at::Tensor times_steps(const at::Tensor& numbers_NG, const at::Tensor& steps_N1) {
  return numbers_NG.to(at::kFloat) * steps_N1;
}

// In steps of which the largest number of a group is 127. Undefined unless those are the numbers.
CompactTensor in_steps(const at::Tensor& value, std::int64_t group) {
  const at::Tensor parts_NG = value.reshape({-1, group}), steps_N1 = parts_NG.abs().amax(-1, true) / 127,
                   numbers_NG = at::where(steps_N1 > 0, parts_NG / steps_N1, 0.0f).round().to(at::kChar);
  if (!same_bits(times_steps(numbers_NG, steps_N1), parts_NG)) return {};
  std::vector<std::int64_t> shape = value.sizes().vec();
  shape.back() /= group;
  return {numbers_NG.view(value.sizes()), steps_N1.reshape(shape)};
}

} // namespace

CompactTensor compact(const at::Tensor& given) {
  const at::Tensor value = given.contiguous();
  if (value.scalar_type() != at::kFloat || value.numel() == 0) return {value, {}};
  const std::int64_t width = value.dim() > 0 ? value.size(-1) : 0;
  for (std::int64_t group = kSmallestGroup; group <= width; group += kSmallestGroup)
    if (width % group == 0)
      if (CompactTensor out = in_steps(value, group); out.numbers.defined()) return out;
  const at::Tensor half = value.to(at::kBFloat16);
  return {same_bits(half.to(at::kFloat), value) ? half : value, {}};
}

at::Tensor widened(const CompactTensor& tensor) {
  if (!tensor.steps.defined()) return tensor.numbers.to(at::kFloat);
  const std::int64_t group = tensor.numbers.size(-1) / tensor.steps.size(-1);
  return times_steps(tensor.numbers.reshape({-1, group}), tensor.steps.reshape({-1, 1})).view(tensor.numbers.sizes());
}

} // namespace tenon

#include "kernels/packed.hpp"

namespace tenon {
namespace {

const float* numbers(const std::optional<at::Tensor>& tensor) { return tensor ? tensor->data_ptr<float>() : nullptr; }

} // namespace

cpu::Linear PackedLinear::kernel() const {
  cpu::Linear linear{form->matrix, numbers(bias), {}};
  if (a) linear.change = {a->size(0), static_cast<float>(scale), numbers(a), numbers(b_RF)};
  return linear;
}

} // namespace tenon

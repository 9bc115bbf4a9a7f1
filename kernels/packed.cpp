#include "kernels/packed.hpp"

namespace tenon {
namespace {

const float* numbers(const std::optional<at::Tensor>& tensor) { return tensor ? tensor->data_ptr<float>() : nullptr; }

} // namespace

BoundMatrix::BoundMatrix(const at::Tensor& weight_FC) : weight_FC(weight_FC) {
  if (weight_FC.scalar_type() == at::kFloat && weight_FC.is_contiguous())
    form = packed_form(weight_FC.data_ptr<float>(), weight_FC.size(0), weight_FC.size(1), true);
}

cpu::Linear PackedLinear::kernel() const {
  cpu::Linear linear{form->matrix, numbers(bias), {}};
  if (a) linear.change = {a->size(0), static_cast<float>(scale), numbers(a), numbers(b_RF)};
  return linear;
}

} // namespace tenon

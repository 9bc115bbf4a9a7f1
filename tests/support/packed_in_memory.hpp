// Packed forms of a module's weights for as long as this lives. For tests that need no files.
#pragma once

#include "kernels/packed_forms.hpp"

#include <torch/nn/module.h>

#include <vector>

namespace tenon::test {

// Gives every matrix of a module but low-rank terms a form, and leaves in float32 exactly what kernels then see.
class PackedInMemory {
 public:
  PackedInMemory(torch::nn::Module& module, cpu::PackedFormat format) {
    for (auto& item : module.named_parameters())
      if (item.value().dim() == 2 && item.key() != "a" && item.key() != "b") add(item.value().detach(), format);
  }
  PackedInMemory(const std::vector<at::Tensor>& weights, cpu::PackedFormat format) {
    for (const at::Tensor& weight : weights) add(weight.detach(), format);
  }
  PackedInMemory(const PackedInMemory&) = delete;
  PackedInMemory& operator=(const PackedInMemory&) = delete;
  ~PackedInMemory() {
    for (const float* weights : known_) remove_packed_form(weights);
  }

 private:
  void add(at::Tensor weight, cpu::PackedFormat format) {
    const std::int64_t outputs = weight.size(0), inputs = weight.size(1);
    auto* numbers = weight.data_ptr<float>();
    const auto bytes = std::make_shared<std::vector<std::byte>>(cpu::packed_bytes(format, outputs, inputs).value());
    cpu::pack(format, outputs, inputs, {numbers, static_cast<std::size_t>(weight.numel())}, *bytes);
    const cpu::PackedMatrix matrix{format, outputs, inputs, bytes->data()};
    for (std::int64_t row = 0; row < outputs; ++row)
      cpu::unpack_row(matrix, row, {numbers + row * inputs, static_cast<std::size_t>(inputs)});
    add_packed_form(numbers, {matrix, bytes});
    known_.push_back(numbers);
  }
  std::vector<const float*> known_;
};

} // namespace tenon::test

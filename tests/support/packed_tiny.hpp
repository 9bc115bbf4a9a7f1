// The tiny model and its experts with every product in bfloat16, by our kernels: what is promised bit for bit can be
// tested only here.
#pragma once

#include "kernels/packed_forms.hpp"
#include "tests/support/tiny_model.hpp"

namespace tenon::test {

class PackedTiny {
 public:
  PackedTiny() = default;
  PackedTiny(const PackedTiny&) = delete;
  ~PackedTiny() {
    for (const at::Tensor& weight : known_) remove_packed_form(weight.data_ptr<float>());
  }

  // Compositions go before this. Experts of one kind and name are equal in all of them.
  std::unique_ptr<Composition> compose(const std::vector<ExpertKind>& kinds, Routing routing = {},
                                       double row_bias = 0.0) {
    std::vector<ExpertPackage> experts;
    const auto pack = [this](at::Tensor weight) { add(std::move(weight)); };
    experts.push_back(tiny_expert(*model, causal("base"), 1.0, 0.0, pack));
    experts.front().row.reset();
    for (const ExpertKind& kind : kinds) experts.push_back(tiny_expert(*model, kind, 1.0, row_bias, pack));
    return std::make_unique<Composition>(model, std::move(experts), routing, 0.0, Composition::Options{});
  }

  Scratch scratch;
  std::shared_ptr<const Model> model = tiny_model(scratch.path(), "", Format::bf16);

 private:
  void add(at::Tensor weight) {
    if (weight.dim() != 2) return;
    const std::int64_t outputs = weight.size(0), inputs = weight.size(1);
    constexpr auto kFormat = cpu::PackedFormat::bf16;
    const auto bytes = std::make_shared<std::vector<std::byte>>(cpu::packed_bytes(kFormat, outputs, inputs).value());
    const auto* numbers = weight.data_ptr<float>();
    cpu::pack(kFormat, outputs, inputs, {numbers, static_cast<std::size_t>(weight.numel())}, *bytes);
    add_packed_form(numbers, {{kFormat, outputs, inputs, bytes->data()}, bytes});
    known_.push_back(std::move(weight));
  }

  std::vector<at::Tensor> known_;
};

} // namespace tenon::test

// The tiny model and its experts with every product by our own kernels: what is promised bit for bit can be tested only
// here.
#pragma once

#include "kernels/packed_forms.hpp"
#include "tests/support/tiny_model.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {

// The formats in which products are our kernels': the test goes through each.
inline Format each_packed_format() { return GENERATE(Format::bf16, Format::int8, Format::int4, Format::stored); }

class PackedTiny {
 public:
  explicit PackedTiny(Format format = Format::bf16) : model(tiny_model(scratch.path(), "", format)) {}
  PackedTiny(const PackedTiny&) = delete;
  ~PackedTiny() {
    for (const at::Tensor& weight : known_) remove_packed_form(weight.data_ptr<float>());
  }

  // Compositions go before this. Experts of one kind and name are equal in all of them.
  std::unique_ptr<Composition> compose(const std::vector<ExpertKind>& kinds, Routing routing = {},
                                       double row_bias = 0.0, Composition::Options options = {}) {
    std::vector<ExpertPackage> experts;
    const auto pack = [this](const std::string& name, at::Tensor weight) { add(name, std::move(weight)); };
    experts.push_back(tiny_expert(*model, causal("base"), 1.0, 0.0, pack));
    experts.front().row.reset();
    for (const ExpertKind& kind : kinds) experts.push_back(tiny_expert(*model, kind, 1.0, row_bias, pack));
    return std::make_unique<Composition>(model, std::move(experts), routing, 0.0, std::move(options));
  }

  Scratch scratch;
  std::shared_ptr<const Model> model;

 private:
  cpu::PackedFormat packed_format(const std::string& name) const {
    switch (model->format()) {
      case Format::int8: return cpu::PackedFormat::int8g32;
      case Format::int4: return cpu::PackedFormat::int4g32m;
      case Format::stored: return cpu::lossless_format(stored_type(name)).value();
      default: return cpu::PackedFormat::bf16;
    }
  }

  void add(const std::string& name, at::Tensor weight) {
    if (weight.dim() != 2) return;
    const std::int64_t outputs = weight.size(0), inputs = weight.size(1);
    const cpu::PackedFormat format = packed_format(name);
    const auto bytes = std::make_shared<std::vector<std::byte>>(cpu::packed_bytes(format, outputs, inputs).value());
    const auto* numbers = weight.data_ptr<float>();
    cpu::pack(format, outputs, inputs, {numbers, static_cast<std::size_t>(weight.numel())}, *bytes);
    add_packed_form(numbers, {{format, outputs, inputs, bytes->data()}, bytes});
    known_.push_back(std::move(weight));
  }

  std::vector<at::Tensor> known_;
};

} // namespace tenon::test

#include "kernels/packed_forms.hpp"

#include "host/loading/native.hpp"
#include "host/model/random.hpp"
#include "host/model/state.hpp"

#include <tenon/nn/low_rank.hpp>
#include <tenon/nn/transformer.hpp>

#include <catch2/catch.hpp>

using namespace tenon;

namespace {

constexpr cpu::PackedFormat kFormats[] = {cpu::PackedFormat::bf16, cpu::PackedFormat::int8g32,
                                          cpu::PackedFormat::int4g32, cpu::PackedFormat::int4g32m};

// Llama's blocks, Qwen2's, Qwen3's and GPT-2's.
const nn::BlockKind kKinds[] = {
    {},
    {.bias = nn::BiasKind::qkv},
    {.qk_norm = true},
    {.norm = nn::NormKind::layer, .ffn = nn::FfnKind::gelu, .bias = nn::BiasKind::all, .rotary = false}};

nn::TransformerOptions options_of(const nn::BlockKind& kind) { return {64, 2, 4, 2, 16, 96, 1e-5, 10000.0, kind}; }

at::Tensor noise(const std::string& name, at::IntArrayRef shape) {
  at::Tensor out = at::empty(shape);
  RandomStream(3, name).normal({out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
  return out;
}

void fill(torch::nn::Module& module) {
  at::NoGradGuard no_grad;
  for (auto& item : module.named_parameters())
    item.value().copy_(noise(item.key(), item.value().sizes()) * (item.value().dim() > 1 ? 0.2 : 0.5) +
                       (item.value().dim() > 1 ? 0.0 : 0.5));
}

// Gives every matrix of a module but low-rank terms a form, and leaves in float32 exactly what kernels then see.
class PackedInMemory {
 public:
  PackedInMemory(torch::nn::Module& module, cpu::PackedFormat format) {
    for (auto& item : module.named_parameters())
      if (item.value().dim() == 2 && item.key() != "a" && item.key() != "b") add(item.value().detach(), format);
  }
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

// What a format leaves of rows: bfloat16, or per group of 32 the nearest of 127 steps either way.
at::Tensor rounded(const at::Tensor& x_NC, cpu::PackedFormat format) {
  if (format == cpu::PackedFormat::bf16) return x_NC.to(at::kBFloat16).to(at::kFloat);
  const at::Tensor groups = x_NC.reshape({-1, 32}), step = groups.abs().amax(1, true) / 127.0;
  return ((groups / step).round() * step).view_as(x_NC);
}

// A Linear in LibTorch, on rows rounded so.
class RoundedLinear : public nn::Linear {
 public:
  RoundedLinear(std::int64_t in, std::int64_t out, cpu::PackedFormat format) : Linear(in, out), format_(format) {}
  at::Tensor forward(const at::Tensor& x) override { return at::linear(rounded(x, format_), weight, bias); }

 private:
  cpu::PackedFormat format_;
};

// The same weights as plain blocks, operator by operator.
at::Tensor plain_blocks(const nn::Transformer& stack, const nn::TransformerOptions& options, cpu::PackedFormat format,
                        at::Tensor x_NC, const std::vector<Span>& spans) {
  nn::Transformer plain(options, [&](const std::string&, std::int64_t in, std::int64_t out) {
    return std::make_shared<RoundedLinear>(in, out, format);
  });
  for (auto& item : plain.named_parameters()) item.value().set_data(stack.named_parameters()[item.key()].detach());
  plain.train(false);
  for (const auto& block : plain.blocks) x_NC = block->forward(x_NC, spans);
  return x_NC;
}

ModuleLayout layout_of(const nn::Transformer& stack) {
  StateLayout state;
  stack.add_state(state);
  ModuleLayout layout;
  for (const auto& entry : state.entries())
    layout.push_back({entry.name, entry.kind == TENON_STATE_PER_POSITION, entry.shape});
  return layout;
}

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return ((found - expected).norm() / expected.norm()).item<double>();
}

} // namespace

TEST_CASE("a packed run computes what plain blocks compute on the same weights, with rows rounded as its format says") {
  const at::Tensor h = noise("rows", {14, 64});
  const std::vector<Span> spans = {{0, 5, 0, nullptr}, {5, 9, 0, nullptr}};
  at::NoGradGuard no_grad;
  for (const nn::BlockKind& kind : kKinds)
    for (const cpu::PackedFormat format : kFormats) {
      CAPTURE(cpu::packed_name(format), nn::norm_name(kind.norm), kind.qk_norm);
      nn::Transformer stack(options_of(kind));
      fill(stack);
      const PackedInMemory forms(stack, format);
      stack.train(false);
      const at::Tensor packed = stack.forward(h, spans);
      // Where a sum's last bit decides between two steps the two may part by one step of one number.
      CHECK(relative_error(packed, plain_blocks(stack, options_of(kind), format, h, spans)) < 2e-3);
    }
}

TEST_CASE("a packed run gives the same bits in any split over kept state, and whoever shares the batch") {
  const at::Tensor h = noise("rows", {300, 64});
  at::NoGradGuard no_grad;
  for (const cpu::PackedFormat format : kFormats) {
    CAPTURE(cpu::packed_name(format));
    nn::Transformer stack(options_of({}));
    fill(stack);
    const PackedInMemory forms(stack, format);
    stack.train(false);
    const std::vector<Span> whole = {{0, 300, 0, nullptr}};
    const at::Tensor expected = stack.forward(h, whole);
    for (const std::vector<std::int64_t>& split : {std::vector<std::int64_t>{1, 299}, {7, 1, 1, 255, 36}, {290, 10}}) {
      ModuleState state(layout_of(stack)), other(layout_of(stack));
      std::int64_t position = 0;
      for (const std::int64_t length : split) {
        // Another sequence's first rows go with it.
        const std::vector<Span> next = {{0, 3, 0, nullptr}, {3, length, position, to_handle(&state)}};
        const at::Tensor both = at::cat({h.narrow(0, 0, 3), h.narrow(0, position, length)});
        const at::Tensor found = stack.forward(both, next);
        CHECK(found.narrow(0, 3, length).equal(expected.narrow(0, position, length)));
        CHECK(found.narrow(0, 0, 3).equal(expected.narrow(0, 0, 3)));
        position += length;
      }
    }
  }
}

TEST_CASE("a low-rank change and a bias stay in float32 on a packed weight") {
  at::NoGradGuard no_grad;
  const at::Tensor x = noise("x", {6, 64});
  nn::LowRank linear(64, 96, 4, 0.5);
  linear.add_bias();
  fill(linear);
  const PackedInMemory forms(linear, cpu::PackedFormat::bf16);
  linear.train(false);
  const at::Tensor found = linear.forward(x), rounded = x.to(at::kBFloat16).to(at::kFloat);
  const at::Tensor expected =
      at::linear(rounded, linear.weight, linear.bias) + 0.5 * at::linear(at::linear(x, linear.a), linear.b);
  CHECK(relative_error(found, expected) < 1e-6);
}

TEST_CASE("the first rows of a packed matrix are packed too, another shape at its address is not") {
  at::NoGradGuard no_grad;
  const at::Tensor x = noise("x", {2, 64});
  nn::Linear linear(64, 96);
  fill(linear);
  const PackedInMemory forms(linear, cpu::PackedFormat::bf16);
  const auto product = [&](const at::Tensor& weight, const at::Tensor& rows) {
    return operators::linear(rows, operators::pack_linear(weight));
  };
  CHECK(product(linear.weight.narrow(0, 0, 70), x).equal(product(linear.weight, x).narrow(1, 0, 70)));
  const at::Tensor other = linear.weight.view({192, 32}), rows = noise("y", {2, 32});
  CHECK(product(other, rows).equal(at::linear(rows, other)));
}

TEST_CASE("a weight that cannot have the form asked for is refused where it is multiplied") {
  at::NoGradGuard no_grad;
  const at::Tensor weight = noise("w", {4, 24});
  add_packed_refusal(weight.data_ptr<float>(), 4, 24, "w has 24 inputs");
  CHECK_THROWS_WITH(operators::pack_linear(weight), Catch::Contains("w has 24 inputs"));
  remove_packed_form(weight.data_ptr<float>());
  CHECK_NOTHROW(operators::pack_linear(weight));
}

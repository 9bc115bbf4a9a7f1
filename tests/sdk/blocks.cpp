#include "host/loading/native.hpp"
#include "host/model/random.hpp"
#include "host/model/state.hpp"
#include "tests/kernels/tolerance.hpp"

#include <tenon/nn/low_rank.hpp>
#include <tenon/nn/transformer.hpp>

#include <catch2/catch.hpp>

using namespace tenon;
using tenon::test::kTolerance;

namespace {

const nn::TransformerOptions kOptions{32, 3, 4, 2, 8, 48, 1e-5, 10000.0};

// Llama's blocks, Qwen2's, Qwen3's and GPT-2's.
const std::vector<nn::BlockKind> kKinds = {
    {},
    {.bias = nn::BiasKind::qkv},
    {.qk_norm = true},
    {.norm = nn::NormKind::layer, .ffn = nn::FfnKind::gelu, .bias = nn::BiasKind::all, .rotary = false}};

nn::TransformerOptions of_kind(const nn::BlockKind& kind) {
  nn::TransformerOptions options = kOptions;
  options.kind = kind;
  return options;
}

void fill(torch::nn::Module& module, std::uint64_t seed) {
  at::NoGradGuard no_grad;
  for (auto& item : module.named_parameters()) {
    RandomStream(seed, item.key())
        .normal({item.value().data_ptr<float>(), static_cast<std::size_t>(item.value().numel())});
    item.value().mul_(item.value().dim() > 1 ? 0.2 : 1.0);
  }
}

at::Tensor rows(std::int64_t count, const std::string& name = "rows") {
  at::Tensor h = at::empty({count, kOptions.width});
  RandomStream(9, name).normal({h.data_ptr<float>(), static_cast<std::size_t>(h.numel())});
  return h;
}

ModuleLayout layout_of(const nn::Transformer& stack) {
  StateLayout state;
  stack.add_state(state);
  ModuleLayout layout;
  for (const auto& entry : state.entries())
    layout.push_back({entry.name, entry.kind == TENON_STATE_PER_POSITION, entry.shape});
  return layout;
}

double difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

} // namespace

TEST_CASE("a run of blocks as one operator computes what the plain blocks compute") {
  const at::Tensor h = rows(14);
  const std::vector<Span> spans = {{0, 7, 0, nullptr}, {7, 7, 0, nullptr}};
  for (const nn::BlockKind& kind : kKinds) {
    nn::Transformer stack(of_kind(kind));
    fill(stack, 1);
    stack.train(true);
    const at::Tensor plain = stack.forward(h, spans).detach();
    stack.train(false);
    at::NoGradGuard no_grad;
    CHECK(difference(plain, stack.forward(h, spans)) < kTolerance.blocks);
  }
}

TEST_CASE("a single block in inference goes operator by operator to the same result") {
  const at::Tensor h = rows(6);
  const std::vector<Span> spans = {{0, 6, 0, nullptr}};
  for (const nn::BlockKind& kind : kKinds) {
    nn::TransformerBlock block(of_kind(kind), 0);
    fill(block, 2);
    block.train(true);
    const at::Tensor plain = block.forward(h, spans).detach();
    block.train(false);
    at::NoGradGuard no_grad;
    CHECK(difference(plain, block.forward(h, spans)) < kTolerance.blocks);
  }
}

TEST_CASE("blocks give the same outputs whole and in any split over kept state") {
  nn::Transformer stack(kOptions);
  fill(stack, 3);
  stack.train(false);
  at::NoGradGuard no_grad;
  const at::Tensor h = rows(20);
  const std::vector<Span> whole = {{0, 20, 0, nullptr}};
  const at::Tensor expected = stack.forward(h, whole);
  for (const std::vector<std::int64_t>& split : {std::vector<std::int64_t>{20}, {1, 19}, {7, 1, 12}, {5, 5, 5, 5}}) {
    ModuleState state(layout_of(stack));
    std::int64_t position = 0;
    for (const std::int64_t length : split) {
      const std::vector<Span> next = {{0, length, position, to_handle(&state)}};
      CHECK(difference(stack.forward(h.narrow(0, position, length), next), expected.narrow(0, position, length)) <
            kTolerance.split_blocks);
      position += length;
    }
  }
}

TEST_CASE("sequences in one batch do not see each other") {
  nn::Transformer stack(kOptions);
  fill(stack, 4);
  stack.train(false);
  at::NoGradGuard no_grad;
  const at::Tensor h = rows(12);
  const std::vector<Span> both = {{0, 5, 0, nullptr}, {5, 7, 0, nullptr}}, second = {{0, 7, 0, nullptr}};
  CHECK(difference(stack.forward(h, both).narrow(0, 5, 7), stack.forward(h.narrow(0, 5, 7), second)) <
        kTolerance.blocks);
}

TEST_CASE("a low-rank product is its Linear at birth, and packed as it trains") {
  nn::LowRank product(16, 24, 4, 2.0);
  fill(product, 5);
  const at::Tensor x = rows(3).narrow(1, 0, 16);
  {
    at::NoGradGuard no_grad;
    product.b.zero_();
  }
  CHECK(difference(product.forward(x).detach(), at::linear(x, product.weight).detach()) < kTolerance.newborn);
  fill(product, 5);
  const at::Tensor trained = product.forward(x).detach();
  product.train(false);
  at::NoGradGuard no_grad;
  CHECK(difference(trained, product.forward(x)) < kTolerance.low_rank);
}

TEST_CASE("gradients of the plain blocks agree with finite differences") {
  for (const nn::BlockKind& kind : kKinds) {
    nn::TransformerBlock block(of_kind(kind), 0);
    fill(block, 6);
    block.to(at::kDouble);
    const at::Tensor h = rows(5).to(at::kDouble).set_requires_grad(true);
    const std::vector<Span> spans = {{0, 5, 0, nullptr}};
    const at::Tensor direction = rows(5, "direction").to(at::kDouble);
    block.forward(h, spans).mul(direction).sum().backward();
    at::NoGradGuard no_grad;
    const at::Tensor step = rows(5, "step").to(at::kDouble);
    const double small = 1e-4;
    const auto at_offset = [&](double sign) {
      return block.forward(h + step * (sign * small), spans).mul(direction).sum().item<double>();
    };
    const double numeric = (at_offset(1) - at_offset(-1)) / (2 * small),
                 exact = h.grad().mul(step).sum().item<double>();
    CHECK(exact == Approx(numeric).epsilon(kTolerance.slope));
  }
}

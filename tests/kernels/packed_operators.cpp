#include "kernels/packed_operators.hpp"

#include "host/loading/native.hpp"
#include "host/model/random.hpp"
#include "host/model/state.hpp"
#include "tests/kernels/tolerance.hpp"
#include "tests/support/packed_in_memory.hpp"

#include <tenon/nn/low_rank.hpp>
#include <tenon/nn/transformer.hpp>

#include <catch2/catch.hpp>

using namespace tenon;
using tenon::test::kTolerance;
using tenon::test::PackedInMemory;

namespace {

constexpr cpu::PackedFormat kFormats[] = {cpu::PackedFormat::bf16, cpu::PackedFormat::int8g32,
                                          cpu::PackedFormat::int4g32, cpu::PackedFormat::int4g32m,
                                          cpu::PackedFormat::bf16e4};

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

// What a format leaves of rows: bfloat16, or per group of 32 the nearest of 127 steps either way.
at::Tensor rounded(const at::Tensor& x_NC, cpu::PackedFormat format) {
  if (cpu::reads_bf16(format)) return x_NC.to(at::kBFloat16).to(at::kFloat);
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

nn::MakeLinear low_rank(std::int64_t rank) {
  return [rank](const std::string& name, std::int64_t in, std::int64_t out) -> std::shared_ptr<nn::Linear> {
    if (name.back() == 'k') return nn::plain_linear(name, in, out); // not every product changes
    return std::make_shared<nn::LowRank>(in, out, rank, 0.7);
  };
}

// Everything of `base`'s; what the other has beside it is its own.
void share(const nn::Transformer& base, nn::Transformer& other, const std::string& name) {
  for (auto& item : other.named_parameters()) {
    const at::Tensor* shared = base.named_parameters().find(item.key());
    item.value().set_data(shared ? shared->detach() : noise(name + item.key(), item.value().sizes()) * 0.2);
  }
}

const PackedHandle* handle(nn::Transformer& stack) { return stack.packed().toCustomClass<PackedHandle>().get(); }

// How keys and values are kept by runs that are packed while this lives.
class Keys {
 public:
  explicit Keys(const char* format) { setenv("TENON_KEYS", format, 1); }
  ~Keys() { unsetenv("TENON_KEYS"); }
};

// Packs the blocks anew.
at::Tensor packed_again(nn::Transformer& stack, const at::Tensor& h, const std::vector<Span>& spans) {
  stack.train(true);
  stack.train(false);
  return stack.forward(h, spans);
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
      const at::Tensor plain = plain_blocks(stack, options_of(kind), format, h, spans);
      {
        const Keys keys("float32");
        CHECK(relative_error(packed_again(stack, h, spans), plain) < kTolerance.plain_run);
      }
      CHECK(relative_error(packed_again(stack, h, spans), plain) < kTolerance.plain_run_bf16);
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

TEST_CASE("a packed run's kept state may be forked, cut back and restored, in every form of keys and values") {
  at::NoGradGuard no_grad;
  const at::Tensor h = noise("rows", {300, 64});
  const nn::TransformerOptions wide{64, 2, 4, 2, 32, 96, 1e-5, 10000.0, {}};
  for (const char* keys : {"float32", "bf16", "int8"}) {
    CAPTURE(keys);
    const Keys form(keys);
    nn::Transformer stack(wide);
    fill(stack);
    const PackedInMemory forms(stack, cpu::PackedFormat::bf16);
    stack.train(false);
    const at::Tensor expected = stack.forward(h, std::vector<Span>{{0, 300, 0, nullptr}});
    const auto run = [&](ModuleState& state, std::int64_t first, std::int64_t last) {
      const std::vector<Span> span = {{0, last - first, first, to_handle(&state)}};
      const at::Tensor found = stack.forward(h.narrow(0, first, last - first), span);
      state.advance(last - first);
      return found.equal(expected.narrow(0, first, last - first));
    };
    ModuleState state(layout_of(stack));
    CHECK(run(state, 0, 131));
    ModuleState fork = state.fork();
    CHECK(run(state, 131, 300));
    CHECK(run(fork, 131, 132));
    state.truncate(259);
    std::vector<at::Tensor> values;
    for (std::size_t slot = 0; slot < state.slots(); ++slot) values.push_back(state.value(slot));
    ModuleState restored(layout_of(stack));
    restored.restore(0, 259, values);
    CHECK(run(state, 259, 300));
    CHECK(run(restored, 259, 300));
  }
}

TEST_CASE("a form of keys and values that is unknown or cannot hold the heads is refused with the remedy") {
  at::NoGradGuard no_grad;
  const at::Tensor h = noise("rows", {3, 64});
  const auto run = [&](const char* keys) {
    nn::Transformer stack(options_of({}));
    fill(stack);
    const PackedInMemory forms(stack, cpu::PackedFormat::bf16);
    const Keys form(keys);
    stack.train(false);
    stack.forward(h, std::vector<Span>{{0, 3, 0, nullptr}});
  };
  CHECK_THROWS_WITH(run("int7"), Catch::Contains("need float32, bf16 or int8"));
  CHECK_THROWS_WITH(run("int8"), Catch::Contains("16 wide") && Catch::Contains("choose bf16 or float32"));
  CHECK_NOTHROW(run("bf16"));
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
  CHECK(relative_error(found, expected) < kTolerance.changed_operator);
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

TEST_CASE("runs that share their weights go together, each with its own low-rank change, to the same bits as alone") {
  at::NoGradGuard no_grad;
  const at::Tensor h = noise("rows", {40, 64});
  for (const nn::BlockKind& kind : kKinds)
    for (const cpu::PackedFormat format : kFormats) {
      CAPTURE(cpu::packed_name(format), nn::norm_name(kind.norm));
      nn::Transformer base(options_of(kind)), one(options_of(kind), low_rank(3)), two(options_of(kind), low_rank(5));
      fill(base), share(base, one, "one"), share(base, two, "two");
      const PackedInMemory forms(base, format);
      for (nn::Transformer* stack : {&base, &one, &two}) stack->train(false);
      ModuleState kept(layout_of(two)), kept_alone(layout_of(two));
      for (const std::int64_t past : {0, 4}) {
        const std::vector<Span> spans = {{0, 7, 0, nullptr},
                                         {7, 1, 0, nullptr},
                                         {8, 20, past * 5, to_handle(&kept)},
                                         {28, 5, 0, nullptr},
                                         {33, 7, 0, nullptr}};
        nn::Transformer* of[] = {&one, &base, &two, &base, &one};
        std::vector<RunOfSpan> runs;
        for (nn::Transformer* stack : of) runs.push_back({handle(*stack), 0});
        CHECK(share_weights(*handle(base), *handle(one)));
        const at::Tensor together = packed_runs(h, runs, spans);
        for (std::size_t i = 0; i < spans.size(); ++i) {
          const Span alone{0, spans[i].length, spans[i].position, spans[i].state ? to_handle(&kept_alone) : nullptr};
          CHECK(together.narrow(0, spans[i].offset, spans[i].length)
                    .equal(of[i]->forward(h.narrow(0, spans[i].offset, spans[i].length), alone)));
        }
      }
    }
}

TEST_CASE("runs on other weights are not taken for runs that share them") {
  at::NoGradGuard no_grad;
  nn::Transformer base(options_of({})), other(options_of({})), plain(options_of({}));
  fill(base), fill(other), fill(plain);
  const PackedInMemory forms(base, cpu::PackedFormat::bf16), others(other, cpu::PackedFormat::bf16);
  for (nn::Transformer* stack : {&base, &other, &plain}) stack->train(false);
  CHECK(share_weights(*handle(base), *handle(base)));
  CHECK_FALSE(share_weights(*handle(base), *handle(other)));
  CHECK_FALSE(share_weights(*handle(plain), *handle(plain))); // no packed form
}

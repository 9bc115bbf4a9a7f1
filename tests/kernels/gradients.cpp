#include "kernels/gradients.hpp"

#include "host/model/random.hpp"
#include "tests/kernels/tolerance.hpp"

#include <tenon/operators.hpp>

#include <catch2/catch.hpp>

#include <ATen/Parallel.h>
#include <functional>
#include <limits>
#include <tuple>

using namespace tenon;
using tenon::test::kTolerance;

namespace {

at::Tensor noise(const std::string& name, at::IntArrayRef shape, double deviation = 1.0) {
  at::Tensor out = at::empty(shape);
  RandomStream(5, name).normal({out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
  return out * deviation;
}

// A result, and what a gradient of `direction` towards it is towards each input.
using Operator = std::function<at::Tensor(const std::vector<at::Tensor>&)>;
std::vector<at::Tensor> with_gradients(const Operator& call, const std::vector<at::Tensor>& inputs,
                                       at::ScalarType type) {
  std::vector<at::Tensor> leaves, out;
  for (const at::Tensor& input : inputs) leaves.push_back(input.to(type, false, true).set_requires_grad(true));
  const at::Tensor y = call(leaves);
  (y * noise("direction", y.sizes()).to(y.scalar_type())).sum().backward();
  out.push_back(y.detach().to(at::kDouble));
  for (const at::Tensor& leaf : leaves) out.push_back(leaf.grad().to(at::kDouble));
  return out;
}

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return ((found - expected).norm() / expected.norm()).item<double>();
}

struct Case {
  std::string name;
  Operator call;
  std::vector<at::Tensor> inputs;
};

// Rows and widths that fill no vector and no task; silu_multiply far out, where exp would overflow.
std::vector<Case> cases() {
  const Operator norm = [](const auto&in) { return operators::rms_norm(in[0], in[1], 1e-5); },
                 gate = [](const auto&in) { return operators::silu_multiply(in[0], in[1]); }, turn = [](const auto&in) {
                   const at::Tensor angle_TP = noise("angle", {in[0].size(1), in[0].size(3) / 2});
                   return operators::rotate(in[0], angle_TP.cos(), angle_TP.sin());
                 };
  const Operator attend = [](const auto& in) { return operators::causal_attention(in[0], in[1], in[2]); };
  std::vector<Case> out;
  for (const auto& [length, heads, kv_heads] : {std::tuple{2, 1, 1}, {70, 6, 2}, {300, 3, 3}}) {
    const auto shape = [&, length = length](std::int64_t heads) {
      return std::vector<std::int64_t>{2, length, heads, 24};
    };
    out.push_back({"causal_attention",
                   attend,
                   {noise("q", shape(heads)), noise("k", shape(kv_heads)), noise("v", shape(kv_heads))}});
  }
  for (const std::int64_t rows : {1, 33, 300})
    for (const std::int64_t width : {1, 17, 576}) {
      out.push_back({"rms_norm", norm, {noise("x", {rows, width}), noise("w", {width})}});
      out.push_back({"silu_multiply", gate, {noise("gate", {rows, width}, 30.0), noise("up", {rows, width})}});
    }
  for (const std::int64_t heads : {1, 3})
    for (const std::int64_t depth : {2, 64}) out.push_back({"rotate", turn, {noise("x", {2, 50, heads, depth})}});
  return out;
}

} // namespace

TEST_CASE("operators that train give the results and gradients of their formulas in double precision") {
  for (const Case& one : cases()) {
    const auto exact = with_gradients(one.call, one.inputs, at::kDouble),
               found = with_gradients(one.call, one.inputs, at::kFloat);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      CAPTURE(one.name, one.inputs[0].sizes(), i);
      if (one.name == "rms_norm" && one.inputs[0].size(1) == 1 && i == 1)
        CHECK((found[i] - exact[i]).abs().max().item<double>() <
              kTolerance.cancelled * (1 + exact[i].abs().max().item<double>()));
      else
        CHECK(relative_error(found[i], exact[i]) < kTolerance.trained);
    }
  }
}

TEST_CASE("in bfloat16 they are rounded once, as the products around them are") {
  for (const Case& one : cases()) {
    std::vector<at::Tensor> rounded;
    for (const at::Tensor& input : one.inputs) rounded.push_back(input.to(at::kBFloat16).to(at::kFloat));
    if (one.name == "rms_norm") rounded[1] = one.inputs[1];
    const Operator call = [&](std::vector<at::Tensor> in) {
      if (one.name == "rms_norm") in[1] = in[1].to(at::kFloat); // weights of norms stay float32
      return one.call(in);
    };
    const auto found = with_gradients(call, rounded, at::kBFloat16),
               exact = with_gradients(one.call, rounded, at::kDouble);
    if (one.name != "rms_norm") {
      std::vector<at::Tensor> wide;
      for (const at::Tensor& input : rounded) wide.push_back(input.to(at::kFloat));
      // A processor's own rounding makes zero of what is below the smallest normal number, as its products take it.
      const auto normal = [](const at::Tensor& y) {
        return at::where(y.abs() < std::numeric_limits<float>::min(), at::zeros_like(y), y);
      };
      CHECK(normal(found[0]).equal(normal(one.call(wide).to(at::kBFloat16).to(at::kDouble))));
    }
    for (std::size_t i = 0; i < exact.size(); ++i) {
      CAPTURE(one.name, one.inputs[0].sizes(), i);
      if (one.name == "rms_norm" && (i == 2 || one.inputs[0].size(1) == 1)) continue; // the weight was rounded, too
      CHECK(relative_error(found[i], exact[i]) < kTolerance.trained_bf16);
    }
  }
}

TEST_CASE(
    "products in bfloat16 without instructions for them round what they read, sum in float32, and give their "
    "gradients") {
  const std::vector<at::Tensor> inputs = {noise("x", {2, 35, 27}), noise("w", {70, 27}), noise("bias", {70})};
  const Operator narrow = [](const auto&in) { return narrow_linear(in[0], in[1], in[2]); },
                 linear = [](const auto&in) { return at::linear(in[0], in[1], in[2]); };
  std::vector<at::Tensor> rounded = inputs;
  for (const int i : {0, 1}) rounded[i] = inputs[i].to(at::kBFloat16).to(at::kFloat);
  const auto found = with_gradients(narrow, inputs, at::kFloat), exact = with_gradients(linear, rounded, at::kDouble);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    CAPTURE(i);
    CHECK(found[i].sizes() == exact[i].sizes());
    CHECK(relative_error(found[i], exact[i]) < kTolerance.narrow_linear);
  }
  const at::Tensor a = noise("a", {61, 33}), b = noise("b", {61, 40}); // both turned
  const at::Tensor product = narrow_product(a.t(), b.t().to(at::kBFloat16)),
                   expected = a.t().to(at::kBFloat16).to(at::kDouble).mm(b.to(at::kBFloat16).to(at::kDouble));
  CHECK(product.scalar_type() == at::kFloat);
  CHECK(relative_error(product.to(at::kDouble), expected) < kTolerance.narrow_product);
}

TEST_CASE("rows that lie turned, gradients that are one number spread out, and inputs that need none are as others") {
  const at::Tensor x = noise("x", {40, 24}), other = noise("other", {24, 40}), weight = noise("w", {40});
  const auto gradient = [](const Operator& call, const at::Tensor& input, at::ScalarType type) {
    const at::Tensor leaf = input.to(type, false, true).set_requires_grad(true);
    call({leaf}).sum().backward();
    return leaf.grad().to(at::kDouble);
  };
  const auto as = [](const at::Tensor& tensor, const at::Tensor& like) { return tensor.to(like.scalar_type()); };
  const std::vector<Operator> calls = {
      [&](const auto& in) { return operators::rms_norm(in[0].t(), as(weight, in[0]), 1e-5); },
      [&](const auto& in) { return operators::silu_multiply(in[0].t(), as(other, in[0])); },
      [&](const auto& in) { return operators::silu_multiply(as(other, in[0]), in[0].t()); },
      [&](const auto& in) {
        return operators::rotate(in[0].t().view({2, 12, 4, 10}), at::ones({12, 5}), at::full({12, 5}, 0.5));
      }};
  for (std::size_t i = 0; i < calls.size(); ++i) {
    CAPTURE(i);
    const Operator& call = calls[i];
    const at::Tensor input = i < 3 ? x : x.t().contiguous().view({24, 40}).t(); // t() of it lies in order
    CHECK(relative_error(gradient(call, input, at::kFloat), gradient(call, input, at::kDouble)) < kTolerance.trained);
  }
}

TEST_CASE("gradients are the same bits whatever the threads") {
  const int threads = at::get_num_threads();
  for (const Case& one : cases()) {
    at::set_num_threads(1);
    const auto alone = with_gradients(one.call, one.inputs, at::kFloat);
    at::set_num_threads(3);
    const auto several = with_gradients(one.call, one.inputs, at::kFloat);
    for (std::size_t i = 0; i < alone.size(); ++i) {
      CAPTURE(one.name, i);
      CHECK(alone[i].equal(several[i]));
    }
  }
  at::set_num_threads(threads);
}

TEST_CASE("shapes that do not fit together are refused by name") {
  CHECK_THROWS_WITH(operators::rms_norm(at::zeros({2, 9}), at::zeros({4}), 1e-5), Catch::Contains("[2, 9]"));
  CHECK_THROWS_WITH(operators::silu_multiply(at::zeros({2, 3}), at::zeros({3, 2})), Catch::Contains("[2, 3]"));
  CHECK_THROWS_WITH(operators::silu_multiply(at::zeros({2}), at::zeros({2}, at::kDouble)), Catch::Contains("Double"));
  CHECK_THROWS_WITH(operators::rotate(at::zeros({1, 4, 2, 6}), at::zeros({4, 2}), at::zeros({4, 2})),
                    Catch::Contains("(T,D/2)"));
}

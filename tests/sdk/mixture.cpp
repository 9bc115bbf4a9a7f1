#include <tenon/nn/mixture.hpp>

#include "host/loading/native.hpp"
#include "host/model/random.hpp"
#include "tests/kernels/tolerance.hpp"
#include "tests/support/packed_in_memory.hpp"

#include <catch2/catch.hpp>

using namespace tenon;
using tenon::test::kTolerance;
using tenon::test::PackedInMemory;

namespace {

constexpr std::int64_t kWidth = 64;

at::Tensor noise(const std::string& name, at::IntArrayRef shape, double deviation = 1.0) {
  at::Tensor out = at::empty(shape);
  RandomStream(3, name).normal({out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
  return out * deviation;
}

nn::MixtureOptions options(double balance) { return {kWidth, 96, 5, 2, balance}; }

std::shared_ptr<nn::Mixture> grown(double balance = 0.0) {
  auto mixture = std::make_shared<nn::Mixture>(options(balance));
  at::NoGradGuard no_grad;
  for (auto& item : mixture->named_parameters()) item.value().copy_(noise(item.key(), item.value().sizes(), 0.2));
  return mixture;
}

// Row by row, each expert for itself; rows rounded as a packed format rounds them.
at::Tensor row_by_row(const nn::Mixture& mixture, const at::Tensor& x_NC,
                      const std::function<at::Tensor(const at::Tensor&)>& rounded) {
  at::Tensor y_NC = at::zeros_like(x_NC);
  for (std::int64_t n = 0; n < x_NC.size(0); ++n) {
    const at::Tensor x_1C = x_NC.narrow(0, n, 1);
    const auto [score_K, chosen_K] = at::linear(x_1C, mixture.router->weight).flatten().topk(2);
    const at::Tensor w_K = score_K.softmax(0);
    for (std::int64_t k = 0; k < 2; ++k) {
      const nn::SwiGlu& expert = *mixture.experts[static_cast<std::size_t>(chosen_K[k].item<std::int64_t>())];
      const at::Tensor in = rounded(x_1C),
                       inner = at::silu(at::linear(in, expert.gate->weight)) * at::linear(in, expert.up->weight);
      y_NC.narrow(0, n, 1) += w_K[k] * at::linear(rounded(inner), expert.down->weight);
    }
  }
  return y_NC;
}

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return ((found - expected).norm() / expected.norm()).item<double>();
}

} // namespace

TEST_CASE("a mixture sends every row through its best experts, in training and as one operator") {
  const auto mixture = grown();
  const at::Tensor x = noise("rows", {40, kWidth});
  at::NoGradGuard no_grad;
  const at::Tensor expected = row_by_row(*mixture, x, [](const at::Tensor& rows) { return rows; });
  CHECK(relative_error(mixture->forward(x), expected) < kTolerance.mixture);
  mixture->train(false);
  CHECK(relative_error(mixture->forward(x), expected) < kTolerance.mixture);
  CHECK(mixture->forward(x.narrow(0, 0, 0)).sizes() == at::IntArrayRef({0, kWidth}));
}

TEST_CASE("a packed mixture computes on rows rounded as its format says, the same bits whatever rows are beside them") {
  const at::Tensor x = noise("rows", {150, kWidth});
  at::NoGradGuard no_grad;
  for (const cpu::PackedFormat format : {cpu::PackedFormat::bf16, cpu::PackedFormat::bf16e4, cpu::PackedFormat::int8g32,
                                         cpu::PackedFormat::int4g32, cpu::PackedFormat::int4g32m}) {
    CAPTURE(cpu::packed_name(format));
    const auto mixture = grown();
    const at::Tensor router = mixture->router->weight.clone();
    const PackedInMemory forms(*mixture, format);
    mixture->router->weight.copy_(router); // scores are float32 in every format
    mixture->train(false);
    const at::Tensor found = mixture->forward(x),
                     expected = row_by_row(*mixture, x, [&](const at::Tensor&rows) {
                       if (cpu::reads_bf16(format)) return rows.to(at::kBFloat16).to(at::kFloat);
                       const at::Tensor groups = rows.reshape({-1, 32}), step = groups.abs().amax(1, true) / 127.0;
                       return ((groups / step).round() * step).view_as(rows);
                     });
    CHECK(mixture->forward(x.narrow(0, 0, 0)).numel() == 0);
    CHECK(relative_error(found, expected) < kTolerance.packed_mixture);
    for (const std::int64_t count : {1, 3, 70})
      CHECK(mixture->forward(x.narrow(0, 11, count)).equal(found.narrow(0, 11, count)));
  }
}

TEST_CASE("the loss of balance reaches the router's gradient as if it were part of the loss") {
  const at::Tensor x = noise("rows", {30, kWidth}), direction = noise("direction", {30, kWidth});
  const auto gradient = [&](double balance) {
    const auto mixture = grown(balance);
    (mixture->forward(x) * direction).sum().backward();
    return mixture->router->weight.grad().clone();
  };
  const auto mixture = grown();
  const at::Tensor scores_NE = at::linear(x, mixture->router->weight),
                   chosen_NK = std::get<1>(scores_NE.detach().topk(2, -1)),
                   f_E = at::bincount(chosen_NK.flatten(), {}, 5).to(at::kFloat) / 60.0;
  (30.0 * 5.0 * (f_E * scores_NE.softmax(-1).mean(0)).sum()).backward();
  const at::Tensor expected = mixture->router->weight.grad();
  CHECK(expected.abs().max().item<double>() > 1e-4);
  CHECK(relative_error(gradient(30.0) - gradient(0.0), expected) < kTolerance.balance_gradient);
}

TEST_CASE("experts of unequal shapes, or with changes of low rank, are not packed as one mixture") {
  const auto linear = [](std::int64_t out, std::int64_t in) { return operators::pack_linear(at::zeros({out, in})); };
  const at::Tensor router = at::zeros({2, 8});
  const std::vector<Packed> one = {linear(16, 8), linear(16, 8), linear(8, 16)};
  std::vector<Packed> two = one;
  CHECK_THROWS_WITH(operators::pack_mixture(router, two, 1), Catch::Contains("another shape"));
  two.insert(two.end(), {linear(16, 8), linear(24, 8), linear(8, 16)});
  CHECK_THROWS_WITH(operators::pack_mixture(router, two, 1), Catch::Contains("expert 1"));
  two[4] = operators::pack_linear(at::zeros({16, 8}), {}, at::zeros({2, 8}), at::zeros({16, 2}));
  CHECK_THROWS_WITH(operators::pack_mixture(router, two, 1), Catch::Contains("low rank"));
  two[4] = linear(16, 8);
  CHECK_THROWS_WITH(operators::pack_mixture(router, two, 3), Catch::Contains("3 active of 2"));
  const Packed sound = operators::pack_mixture(router, two, 2);
  CHECK(operators::mixture(at::zeros({3, 8}), sound).sizes() == at::IntArrayRef({3, 8}));
  CHECK_THROWS_WITH(operators::mixture(at::zeros({3, 6}), sound), Catch::Contains("rows of 8"));
}

#include "host/training/least_squares.hpp"

#include "registry/base/error.hpp"
#include "tests/support/tiny_model.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

namespace tenon {
namespace {

using test::normal;

at::Tensor with_one(const at::Tensor& x_NC) {
  return at::cat({x_NC.to(at::kDouble), at::ones({x_NC.size(0), 1}, at::kDouble)}, 1);
}

double largest(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

LinearFit fit_in_batches(const at::Tensor& x, const at::Tensor& y, double ridge, std::int64_t batch) {
  LeastSquares squares;
  for (std::int64_t i = 0; i < x.size(0); i += batch) {
    const std::int64_t count = std::min(batch, x.size(0) - i);
    squares.add(x.narrow(0, i, count), y.narrow(0, i, count));
  }
  return squares.solve(ridge);
}

} // namespace

TEST_CASE("least squares agrees with a float64 reference, whatever the batches") {
  const at::Tensor x = normal("x", {200, 7}, 1.0) * at::tensor({1.0, 10.0, 0.1, 1.0, 3.0, 1.0, 1.0}, at::kFloat) + 5.0,
                   y = x.matmul(normal("w", {7, 3}, 1.0)) + normal("noise", {200, 3}, 0.5) - 2.0;
  const at::Tensor w = std::get<0>(at::linalg_lstsq(with_one(x), y.to(at::kDouble)));
  for (const std::int64_t batch : {200, 64, 1}) {
    const LinearFit fit = fit_in_batches(x, y, 1e-12, batch);
    CHECK(largest(fit.weight_FC, w.narrow(0, 0, 7).t()) < 1e-4);
    CHECK(largest(fit.bias_F, w[7]) < 1e-3);
    const at::Tensor residual = y.to(at::kDouble) - with_one(x).matmul(w);
    CHECK(fit.unexplained ==
          Approx((residual.square().sum() / (y - y.mean(0)).to(at::kDouble).square().sum()).item<double>())
              .epsilon(1e-4));
  }
}

TEST_CASE("a ridge weighs each input at its own scale") {
  const at::Tensor x = normal("x", {300, 4}, 1.0), y = x.matmul(normal("w", {4, 2}, 1.0)) + normal("e", {300, 2}, 1.0);
  const at::Tensor scale = at::tensor({1000.0, 1.0, 0.001, 7.0}, at::kFloat);
  const LinearFit plain = fit_in_batches(x, y, 0.1, 300), scaled = fit_in_batches(x * scale, y, 0.1, 300);
  CHECK(largest(scaled.weight_FC * scale, plain.weight_FC) < 1e-4);
  CHECK(plain.weight_FC.norm().item<double>() < fit_in_batches(x, y, 1e-9, 300).weight_FC.norm().item<double>());
}

TEST_CASE("activations of low rank are fitted as well as they can be, with small finite weights") {
  // Ten channels of rank three, one of them constant, seen at fewer positions than there are channels too.
  const at::Tensor z = normal("z", {400, 3}, 1.0);
  at::Tensor x = z.matmul(normal("mix", {3, 10}, 1.0));
  x.select(1, 4).fill_(7.0);
  const at::Tensor y = z.matmul(normal("target", {3, 5}, 1.0)) + 1.0;
  for (const std::int64_t rows : {400, 6}) {
    const LinearFit fit = fit_in_batches(x.narrow(0, 0, rows), y.narrow(0, 0, rows), 1e-6, 50);
    CHECK(fit.unexplained < 1e-4);
    CHECK(fit.weight_FC.isfinite().all().item<bool>());
    CHECK(fit.weight_FC.abs().max().item<double>() < 10.0);
    CHECK(fit.weight_FC.select(1, 4).abs().max().item<double>() == 0.0);
    CHECK(largest(at::linear(x.narrow(0, 0, rows), fit.weight_FC, fit.bias_F), y.narrow(0, 0, rows)) < 0.05);
  }
}

TEST_CASE("a fit without rows, or to numbers that are not finite, is refused") {
  const auto code_of = [](const LeastSquares& squares) {
    try {
      squares.solve(1e-6);
    } catch (const Error& error) {
      return error.code;
    }
    return Code::bug;
  };
  LeastSquares squares;
  CHECK(code_of(squares) == Code::usage);
  at::Tensor x = normal("x", {10, 3}, 1.0);
  x[4][1].fill_(NAN);
  squares.add(x, normal("y", {10, 2}, 1.0));
  CHECK(code_of(squares) == Code::numeric);
}

} // namespace tenon

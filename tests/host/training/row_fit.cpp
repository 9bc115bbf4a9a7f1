#include "host/training/row_fit.hpp"

#include "registry/base/error.hpp"
#include "tests/support/tiny_model.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>

namespace tenon {
namespace {

constexpr std::int64_t kWidth = 6;

at::Tensor cloud(const std::string& name, std::int64_t rows, double shift) {
  return test::normal(name, {rows, kWidth}, 1.0) + at::tensor({shift, 0.0, -shift / 2, 0.0, 0.0, 0.0}, at::kFloat);
}

// Newton's method on the same objective, written down once more and independently.
at::Tensor newton(const at::Tensor& domain, const at::Tensor& general, double l2) {
  const at::Tensor rows = at::cat({domain, general}).to(at::kDouble);
  const at::Tensor x_N = at::cat({rows, at::ones({rows.size(0), 1}, at::kDouble)}, 1);
  const at::Tensor label =
      at::cat({at::ones({domain.size(0)}, at::kDouble), at::zeros({general.size(0)}, at::kDouble)});
  const at::Tensor weight = at::where(label.gt(0.5), at::full({}, 0.5 / domain.size(0), at::kDouble),
                                      at::full({}, 0.5 / general.size(0), at::kDouble));
  at::Tensor ridge = at::eye(kWidth + 1, at::kDouble) * (2 * l2), w = at::zeros({kWidth + 1}, at::kDouble);
  ridge[kWidth][kWidth].zero_();
  for (int i = 0; i < 30; ++i) {
    const at::Tensor p = at::sigmoid(x_N.mv(w));
    const at::Tensor gradient = x_N.t().mv((p - label) * weight) + ridge.mv(w);
    const at::Tensor hessian = x_N.t().mm(x_N * (weight * p * (1 - p)).unsqueeze(1)) + ridge;
    w = w - at::linalg_solve(hessian, gradient);
  }
  return w;
}

} // namespace

TEST_CASE("a row is the minimum of its objective, whatever the classes' sizes") {
  for (const std::int64_t general_rows : {300, 900}) {
    const at::Tensor domain = cloud("domain", 300, 1.0), general = cloud("general", general_rows, 0.0);
    const RowFit fit = fit_row(domain, general, 1e-2);
    const at::Tensor expected = newton(domain, general, 1e-2);
    CHECK(fit.gradient < 1e-6);
    CHECK((fit.row.r_C.to(at::kDouble) - expected.narrow(0, 0, kWidth)).abs().max().item<double>() < 1e-4);
    CHECK(fit.row.b == Approx(expected[kWidth].item<double>()).margin(1e-4));
  }
}

TEST_CASE("a row's score is calibrated log-odds: among positions scored s, a share sigma(s) is the expert's") {
  const at::Tensor domain = cloud("domain", 20000, 1.0), general = cloud("general", 20000, 0.0);
  const RowFit fit = fit_row(domain, general, 0.0);
  const auto score = [&](const at::Tensor& x) { return x.mv(fit.row.r_C) + fit.row.b; };
  const at::Tensor from_domain = score(domain), from_general = score(general);
  for (const double at_score : {-1.5, 0.0, 1.5}) {
    const auto near = [&](const at::Tensor& s) { return (s - at_score).abs().lt(0.25).sum().item<double>(); };
    const double share = near(from_domain) / (near(from_domain) + near(from_general));
    CHECK(share == Approx(1 / (1 + std::exp(-at_score))).margin(0.03));
  }
}

TEST_CASE("the same positions give the same row, bit for bit") {
  const RowFit a = fit_row(cloud("domain", 500, 1.0), cloud("general", 500, 0.0), 1e-2);
  const RowFit b = fit_row(cloud("domain", 500, 1.0), cloud("general", 500, 0.0), 1e-2);
  CHECK(a.row.r_C.equal(b.row.r_C));
  CHECK(a.row.b == b.row.b);
}

TEST_CASE("text that is no different from general text gets a row near zero") {
  const RowFit fit = fit_row(cloud("domain", 5000, 0.0), cloud("general", 5000, 0.0), 1e-2);
  CHECK(fit.row.r_C.abs().max().item<double>() < 0.1);
  CHECK(std::abs(fit.row.b) < 0.1);
}

TEST_CASE("a row is refused without positions, and where h is not finite") {
  try {
    fit_row(at::empty({0, kWidth}), cloud("general", 10, 0.0), 1e-2);
    FAIL("fitted a row to nothing");
  } catch (const Error& error) {
    CHECK(error.code == Code::usage);
  }
  at::Tensor broken = cloud("domain", 10, 0.0);
  broken[3][2].fill_(NAN);
  try {
    fit_row(broken, cloud("general", 10, 0.0), 1e-2);
    FAIL("fitted a row to NaN");
  } catch (const Error& error) {
    CHECK(error.code == Code::numeric);
  }
}

} // namespace tenon

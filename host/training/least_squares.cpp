#include "host/training/least_squares.hpp"

#include "registry/base/error.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

// Variance below this share of the largest is rounding: the input never moved.
constexpr double kStill = 1e-20;

} // namespace

void LeastSquares::add(const at::Tensor& x_NC, const at::Tensor& y_NF) {
  at::NoGradGuard no_grad;
  at::Tensor x = x_NC.to(at::kDouble), y = y_NF.to(at::kDouble);
  if (rows_ == 0) {
    x_shift_C_ = x.mean(0);
    y_shift_F_ = y.mean(0);
    x_sum_C_ = at::zeros_like(x_shift_C_);
    y_sum_F_ = at::zeros_like(y_shift_F_);
    yy_F_ = at::zeros_like(y_shift_F_);
    xx_CC_ = at::zeros({x.size(1), x.size(1)}, at::kDouble);
    xy_CF_ = at::zeros({x.size(1), y.size(1)}, at::kDouble);
  }
  x = x - x_shift_C_;
  y = y - y_shift_F_;
  x_sum_C_ += x.sum(0);
  y_sum_F_ += y.sum(0);
  yy_F_ += y.square().sum(0);
  xx_CC_.addmm_(x.t(), x);
  xy_CF_.addmm_(x.t(), y);
  rows_ += x.size(0);
}

LinearFit LeastSquares::solve(double ridge) const {
  at::NoGradGuard no_grad;
  if (rows_ == 0)
    throw Error(Code::usage, "least squares", "found no positions to fit to, need some", "give more text with --data");
  const auto n = static_cast<double>(rows_);
  const at::Tensor x_mean = x_sum_C_ / n, y_mean = y_sum_F_ / n; // around the shifts
  const at::Tensor covariance_CC = xx_CC_ / n - at::outer(x_mean, x_mean),
                   cross_CF = xy_CF_ / n - at::outer(x_mean, y_mean), y_variance_F = yy_F_ / n - y_mean.square();
  const at::Tensor variance_C = covariance_CC.diagonal();
  const at::Tensor scale_C1 =
      at::where(variance_C > kStill * variance_C.max(), variance_C.sqrt(), at::ones({}, at::kDouble)).unsqueeze(1);
  at::Tensor system_CC = covariance_CC / (scale_C1 * scale_C1.t());
  system_CC.diagonal().add_(ridge);
  if (!at::isfinite(system_CC).all().item<bool>() || !at::isfinite(cross_CF).all().item<bool>())
    throw Error(Code::numeric, "least squares", "the activations are not finite", "verify the models: tenon verify");
  const at::Tensor w_CF = at::cholesky_solve(cross_CF / scale_C1, at::linalg_cholesky(system_CC)) / scale_C1;
  const at::Tensor residual_F =
      y_variance_F - 2 * (w_CF * cross_CF).sum(0) + (w_CF * at::mm(covariance_CC, w_CF)).sum(0);
  LinearFit fit;
  fit.weight_FC = w_CF.t().to(at::kFloat).contiguous();
  fit.bias_F = (y_shift_F_ + y_mean - (x_shift_C_ + x_mean).matmul(w_CF)).to(at::kFloat).contiguous();
  fit.unexplained = residual_F.clamp_min(0).sum().item<double>() / std::max(y_variance_F.sum().item<double>(), 1e-300);
  return fit;
}

} // namespace tenon

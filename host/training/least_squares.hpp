// Ridge regression from row pairs that come one batch at a time: only sums are kept, in float64.
// Shapes: N rows, C inputs, F outputs. Thread: one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tenon {

struct LinearFit {
  at::Tensor weight_FC, bias_F; // float32
  double unexplained = 0.0;     // share of y's variance, over what it was fitted to
};

class LeastSquares {
 public:
  // x (N,C), y (N,F), the same C and F in every call.
  void add(const at::Tensor& x_NC, const at::Tensor& y_NF);

  // Minimises mean |W x + b - y|^2 + ridge * sum_c var(x_c) |W_c|^2: each input at its own scale, b not penalised.
  // A ridge above 0 makes the minimum unique, whatever the rank of x: inputs that never move get weight 0.
  // Source: Hoerl and Kennard 1970, Ridge regression, equation 2.1, on standardised inputs.
  // Errors: usage (no rows), numeric (not finite).
  LinearFit solve(double ridge) const;

 private:
  // Sums are around the first batch's means, so that a large mean costs no digits.
  at::Tensor x_shift_C_, y_shift_F_, x_sum_C_, y_sum_F_, xx_CC_, xy_CF_, yy_F_;
  std::int64_t rows_ = 0;
};

} // namespace tenon

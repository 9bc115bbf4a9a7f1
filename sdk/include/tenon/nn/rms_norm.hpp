// RmsNorm: x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in float32 at least.
// Source: Zhang and Sennrich 2019 (arXiv 1910.07467), equation 4.
#pragma once

#include <tenon/nn/norm.hpp>

namespace tenon::nn {

class RmsNorm : public Norm {
 public:
  using Norm::Norm;

  Tensor forward(const Tensor& x) override { return operators::rms_norm(x, weight, eps()); }
};

} // namespace tenon::nn

// RmsNorm: x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in float32 at least.
// Source: Zhang and Sennrich 2019 (arXiv 1910.07467), equation 4.
#pragma once

#include <tenon/operators.hpp>

namespace tenon::nn {

class RmsNorm : public torch::nn::Module {
 public:
  RmsNorm(std::int64_t width, double eps) : eps_(eps) { weight = register_parameter("weight", at::empty({width})); }

  Tensor forward(const Tensor& x) {
    if (!is_training()) return operators::rms_norm(x, weight, eps_);
    const Tensor wide = x.scalar_type() == at::kBFloat16 ? x.to(at::kFloat) : x;
    return wide * at::rsqrt(wide.square().mean(-1, true) + eps_) * weight;
  }

  double eps() const { return eps_; }
  Tensor weight;

 private:
  double eps_;
};

} // namespace tenon::nn

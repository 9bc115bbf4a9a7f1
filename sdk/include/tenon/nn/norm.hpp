// Norm: what normalises the last dimension, each row by itself.
#pragma once

#include <tenon/operators.hpp>

namespace tenon::nn {

// What norms and scans compute in, whatever the products before them did: float32 at least.
inline Tensor wide(const Tensor& x) { return x.scalar_type() == at::kBFloat16 ? x.to(at::kFloat) : x; }

class Norm : public torch::nn::Module {
 public:
  Norm(std::int64_t width, double eps) : eps_(eps) { weight = register_parameter("weight", at::empty({width})); }

  // Any leading dimensions. Gradient flows.
  virtual Tensor forward(const Tensor& x) = 0;

  double eps() const { return eps_; }
  Tensor weight, bias; // bias: undefined where the norm has none

 private:
  double eps_;
};

} // namespace tenon::nn

// LowRank: a Linear with a change of low rank, y = W x + bias + scale * B (A x); zero at birth, because B is.
// Source: Hu et al. 2021, LoRA (arXiv 2106.09685), equation 3; scale is its alpha / r.
#pragma once

#include <tenon/nn/linear.hpp>

namespace tenon::nn {

class LowRank : public Linear {
 public:
  LowRank(std::int64_t in, std::int64_t out, std::int64_t rank, double scale) : Linear(in, out), scale_(scale) {
    a = register_parameter("a", at::empty({rank, in}));
    b = register_parameter("b", at::empty({out, rank}));
  }

  Tensor forward(const Tensor& x) override {
    if (!is_training()) return operators::linear(x, packed());
    const auto linear = [](const Tensor& from, const Tensor& w, const Tensor& shift = {}) {
      return operators::trainable_linear(from, w, shift);
    };
    return linear(x, weight, bias) + linear(scale_ * linear(x, a), b); // scaled where it is narrow
  }

  Tensor a, b;

 protected:
  Packed pack() override { return operators::pack_linear(weight, bias, a, b, scale_); }

 private:
  double scale_;
};

} // namespace tenon::nn

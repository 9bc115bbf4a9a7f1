// Rope: rotary positions on pairs (i, i + D/2), the half-split form of Hugging Face's Llama.
// Source: Su et al. 2021 (arXiv 2104.09864), equation 34, with theta_i = theta^(-2i/D).
#pragma once

#include <tenon/operators.hpp>

namespace tenon::nn {

class Rope {
 public:
  Rope(std::int64_t head_dim, double theta) : head_dim_(head_dim), theta_(theta) {}

  // x (N,H,D) at the spans' positions.
  Tensor inference(const Tensor& x_NHD, c10::ArrayRef<Span> spans) const {
    return operators::rope(x_NHD, spans, theta_);
  }

  // x (B,T,H,D) at positions 0..T-1; plain LibTorch, gradient flows.
  Tensor training(const Tensor& x_BTHD) {
    const std::int64_t length = x_BTHD.size(1);
    if (!cos_TD_.defined() || cos_TD_.size(0) < length) tabulate(length);
    const Tensor cos = cos_TD_.narrow(0, 0, length).unsqueeze(1), sin = sin_TD_.narrow(0, 0, length).unsqueeze(1);
    const auto halves = x_BTHD.chunk(2, -1);
    return x_BTHD * cos + at::cat({-halves[1], halves[0]}, -1) * sin;
  }

 private:
  void tabulate(std::int64_t length) {
    at::NoGradGuard no_grad;
    const Tensor frequency = at::pow(theta_, -at::arange(0, head_dim_, 2, at::kFloat) / static_cast<double>(head_dim_));
    const Tensor angle = at::arange(length, at::kFloat).unsqueeze(1) * frequency;
    const Tensor both = at::cat({angle, angle}, 1);
    cos_TD_ = both.cos();
    sin_TD_ = both.sin();
  }

  std::int64_t head_dim_;
  double theta_;
  Tensor cos_TD_, sin_TD_;
};

} // namespace tenon::nn

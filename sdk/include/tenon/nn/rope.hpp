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

  // x (B,T,H,D) at positions 0..T-1; gradient flows.
  Tensor training(const Tensor& x_BTHD) {
    const std::int64_t length = x_BTHD.size(1);
    if (!cos_TP_.defined() || cos_TP_.size(0) < length) tabulate(length);
    return operators::rotate(x_BTHD, cos_TP_.narrow(0, 0, length), sin_TP_.narrow(0, 0, length));
  }

 private:
  void tabulate(std::int64_t length) {
    at::NoGradGuard no_grad;
    const Tensor frequency_P =
        at::pow(theta_, -at::arange(0, head_dim_, 2, at::kFloat) / static_cast<double>(head_dim_));
    const Tensor angle_TP = at::arange(length, at::kFloat).unsqueeze(1) * frequency_P;
    cos_TP_ = angle_TP.cos();
    sin_TP_ = angle_TP.sin();
  }

  std::int64_t head_dim_;
  double theta_;
  Tensor cos_TP_, sin_TP_;
};

} // namespace tenon::nn

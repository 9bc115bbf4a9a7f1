// CausalConv: every channel has a kernel of its own over the last k positions of its sequence,
//   y_t = bias + sum over j < k of weight_j * x_{t-k+1+j},   rows that the state or, without one, the span lacks are 0.
// Source: Wu et al. 2019 (arXiv 1901.10430), section 2 (depthwise convolution), padded on the left.
// State: the last k-1 rows of x, in `slot`. A product by elements, so training and inference are the same sums.
#pragma once

#include <tenon/nn/sequences.hpp>

namespace tenon::nn {

class CausalConv : public torch::nn::Module {
 public:
  // Requires: kernel >= 2.
  CausalConv(std::int64_t width, std::int64_t kernel, std::uint32_t slot) : kernel_(kernel), slot_(slot) {
    weight = register_parameter("weight", at::empty({width, kernel}));
    bias = register_parameter("bias", at::empty({width}));
  }

  // x (N,F) -> (N,F).
  Tensor forward(const Tensor& x_NF, c10::ArrayRef<Span> spans) {
    if (is_training()) {
      const Tensor x_BTF = batched(x_NF, spans);
      return convolve(at::constant_pad_nd(x_BTF, {0, 0, kernel_ - 1, 0}), x_BTF.size(1)).view_as(x_NF);
    }
    Tensor y_NF = at::empty_like(x_NF);
    for (const Span& span : spans) {
      const State state(span.state);
      Tensor past = state ? state.fixed(slot_) : at::zeros({kernel_ - 1, x_NF.size(1)}, x_NF.options());
      const Tensor seen = at::cat({past, x_NF.narrow(0, span.offset, span.length)});
      y_NF.narrow(0, span.offset, span.length).copy_(convolve(seen, span.length));
      if (state) past.copy_(seen.narrow(0, span.length, kernel_ - 1));
    }
    return y_NF;
  }

  void add_state(StateLayout& layout, const std::string& prefix) const {
    layout.fixed(prefix + "past", {kernel_ - 1, weight.size(0)});
  }

  Tensor weight, bias;

 private:
  // x (..., T+k-1, F) -> (..., T, F).
  Tensor convolve(const Tensor& x, std::int64_t length) const {
    Tensor y = bias;
    for (std::int64_t j = 0; j < kernel_; ++j) y = y + x.narrow(-2, j, length) * weight.select(1, j);
    return y;
  }

  std::int64_t kernel_;
  std::uint32_t slot_;
};

} // namespace tenon::nn

// What nodes with gradients of their own have in common. Inside kernels only. Thread: any.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

namespace tenon {

// What our nodes compute; everything else is LibTorch's.
inline bool is_ours(const at::Tensor& x) { return x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16; }

inline bool gradient_flows(const at::Tensor& x) { return c10::GradMode::is_enabled() && x.requires_grad(); }

inline void first_order_only() {
  TORCH_CHECK(!c10::GradMode::is_enabled(), "[tenon] operators that train have first gradients only");
}

} // namespace tenon

// Operators through which gradients flow, for blocks that train: one pass over memory forward and one back, where
// LibTorch's operators, one after another, make a dozen.
//
// Rows of bfloat16 (autocast) are widened, computed in float32 and rounded once (a norm's stay float32); other types
// than these two are computed by LibTorch's operators, as the formulas say. Sums over rows have one order, whatever the
// threads. Thread: any.
#pragma once

#include <ATen/core/Tensor.h>
#include <optional>

namespace tenon {

// x / sqrt(mean(x^2) + eps) * weight, over the last dimension.
at::Tensor differentiable_rms_norm(const at::Tensor& x, const at::Tensor& weight_C, double eps);

// gate / (1 + exp(-gate)) * up. Requires: one shape and type.
at::Tensor silu_multiply(const at::Tensor& gate, const at::Tensor& up);

// Turns pairs (i, i + D/2) of every head by the angles of its position. cos and sin (T, D/2), float32.
at::Tensor rotate(const at::Tensor& x_BTHD, const at::Tensor& cos_TP, const at::Tensor& sin_TP);

// Causal attention of whole sequences over themselves, heads sharing keys and values: q (B,T,H,D), k and v (B,T,G,D), H
// a multiple of G; returns (B,T,H,D) of q's type. (Vaswani et al. 2017, arXiv 1706.03762, equation 1; on the way back
// Dao et al. 2022, arXiv 2205.14135, algorithm 4.) In float32 inside: no matrix of positions by positions is kept.
at::Tensor causal_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BTGD, const at::Tensor& v_BTGD);

// Products of numbers rounded to bfloat16, with sums in float32. LibTorch's are fast where the processor has AVX-512
// BF16; where it has not they take up to thirty times as long as float32's, which give the same of rounded numbers.
bool narrow_products_are_fast();
// To bfloat16 and back, in float32.
at::Tensor rounded(const at::Tensor& x);
// a b^T: a (N,K) and b (M,K) of float32 or bfloat16, however they lie; returns (N,M), float32.
at::Tensor narrow_product(const at::Tensor& a_NK, const at::Tensor& b_MK);
// x W^T + bias, in bfloat16: x (...,C), W (F,C), bias (F) or undefined. Gradient flows, in the types of what it flows
// to.
at::Tensor narrow_linear(const at::Tensor& x, const at::Tensor& weight_FC, const at::Tensor& bias_F);
// The same where it trains: as narrow_linear under autocast to bfloat16 if LibTorch's own is slow, else LibTorch's.
at::Tensor trainable_linear(const at::Tensor& x, const at::Tensor& weight_FC, const std::optional<at::Tensor>& bias_F);

} // namespace tenon

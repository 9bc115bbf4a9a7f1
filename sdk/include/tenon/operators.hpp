// The host's operators, called through LibTorch's dispatcher: each name carries its version and stands in the plugin's
// facts. A Packed is opaque: how weights are laid out is the kernels' affair and may change under a compiled plugin.
//
// Shapes are checked; what does not fit is refused with both sides named (c10::Error). Thread: any. A Packed may be
// shared.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>
#include <tenon/expert.hpp>

namespace tenon {

using Packed = c10::IValue;

namespace operators {

inline c10::OperatorHandle find(const char* name) { return c10::Dispatcher::singleton().findSchemaOrThrow(name, ""); }

template <class... Arguments>
c10::IValue call(const c10::OperatorHandle& handle, Arguments&&... arguments) {
  torch::jit::Stack stack;
  stack.reserve(sizeof...(arguments));
  (stack.emplace_back(std::forward<Arguments>(arguments)), ...);
  handle.callBoxed(stack);
  return std::move(stack[0]);
}

inline c10::IValue spans_pointer(c10::ArrayRef<Span> spans) { return reinterpret_cast<std::int64_t>(spans.data()); }
inline c10::IValue span_count(c10::ArrayRef<Span> spans) { return static_cast<std::int64_t>(spans.size()); }

inline c10::IValue or_none(const Tensor& tensor) { return tensor.defined() ? c10::IValue(tensor) : c10::IValue(); }

// weight (F,C), bias (F); and, for a low-rank change, a (R,C), b (F,R): W x + bias + scale * b (a x). An undefined
// tensor stands for one that is not there.
inline Packed pack_linear(const Tensor& weight, const Tensor& bias = Tensor(), const Tensor& a = Tensor(),
                          const Tensor& b = Tensor(), double scale = 1.0) {
  static const auto handle = find("tenon::pack_linear_v1");
  return call(handle, weight, or_none(bias), or_none(a), or_none(b), scale);
}
// x (...,C) -> (...,F).
inline Tensor linear(const Tensor& x_NC, const Packed& packed) {
  static const auto handle = find("tenon::linear_v1");
  return call(handle, x_NC, packed).toTensor();
}
// x W^T + bias where it trains: x (...,C), W (F,C), bias (F). Under autocast to bfloat16 both are rounded, by whichever
// products this processor has faster. Gradient flows.
inline Tensor trainable_linear(const Tensor& x, const Tensor& weight_FC, const Tensor& bias_F = Tensor()) {
  static const auto handle = find("tenon::trainable_linear_v1");
  return call(handle, x, weight_FC, or_none(bias_F)).toTensor();
}
// x / sqrt(mean(x^2) + eps) * weight, over the last dimension; in float32 at least. Gradient flows.
inline Tensor rms_norm(const Tensor& x_NC, const Tensor& weight_C, double eps) {
  static const auto handle = find("tenon::rms_norm_v1");
  return call(handle, x_NC, weight_C, eps).toTensor();
}
// gate / (1 + exp(-gate)) * up, of one shape and type. Gradient flows.
inline Tensor silu_multiply(const Tensor& gate, const Tensor& up) {
  static const auto handle = find("tenon::silu_multiply_v1");
  return call(handle, gate, up).toTensor();
}
// Rotary positions by angles at hand: x (B,T,H,D); cos and sin (T,D/2), pairs as in rope. Gradient flows to x.
inline Tensor rotate(const Tensor& x_BTHD, const Tensor& cos_TP, const Tensor& sin_TP) {
  static const auto handle = find("tenon::rotate_v1");
  return call(handle, x_BTHD, cos_TP, sin_TP).toTensor();
}
// Causal attention of whole sequences over themselves: q (B,T,H,D), k and v (B,T,G,D), H a multiple of G; scores are
// scaled by 1 / sqrt(D). Returns (B,T,H,D). Gradient flows.
inline Tensor causal_attention(const Tensor& q_BTHD, const Tensor& k_BTGD, const Tensor& v_BTGD) {
  static const auto handle = find("tenon::causal_attention_v1");
  return call(handle, q_BTHD, k_BTGD, v_BTGD).toTensor();
}
// (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, over the last dimension.
inline Tensor layer_norm(const Tensor& x_NC, const Tensor& weight_C, const Tensor& bias_C, double eps) {
  static const auto handle = find("tenon::layer_norm_v1");
  return call(handle, x_NC, weight_C, bias_C, eps).toTensor();
}
// Rotary positions, half-split pairs (i, i + D/2), in the spans' absolute positions. x (N,H,D).
inline Tensor rope(const Tensor& x_NHD, c10::ArrayRef<Span> spans, double theta) {
  static const auto handle = find("tenon::rope_v1");
  return call(handle, x_NHD, spans_pointer(spans), span_count(spans), theta).toTensor();
}
// Causal attention of every span over itself and, with state, over what it remembers: k and v (N,G,D) are appended to
// slots `slot` and `slot + 1`. q (N,H,D), H a multiple of G. Returns (N,H,D).
inline Tensor attention(const Tensor& q_NHD, const Tensor& k_NGD, const Tensor& v_NGD, c10::ArrayRef<Span> spans,
                        std::int64_t slot) {
  static const auto handle = find("tenon::attention_v1");
  return call(handle, q_NHD, k_NGD, v_NGD, spans_pointer(spans), span_count(spans), slot).toTensor();
}

struct BlockShape {
  std::int64_t heads, kv_heads, head_dim;
  double norm_eps, rope_theta; // rope_theta 0: no rotary positions
};
// Before attention, before the feed-forward: with biases a layer norm, without an RMS norm. q and k, (D): RMS norms of
// every head before it is rotated; undefined where there are none.
struct BlockNorms {
  Tensor attention, attention_bias, ffn, ffn_bias, q, k;
};
// linears: q, k, v, o, gate, up, down (SwiGlu); or q, k, v, o, up, down (Gelu).
inline Packed pack_block(const std::vector<Packed>& linears, const BlockNorms& norms, const BlockShape& shape) {
  static const auto handle = find("tenon::pack_block_v2");
  c10::impl::GenericList list(linears.at(0).type());
  for (const Packed& linear : linears) list.push_back(linear);
  return call(handle, std::move(list), norms.attention, or_none(norms.attention_bias), norms.ffn,
              or_none(norms.ffn_bias), or_none(norms.q), or_none(norms.k), shape.heads, shape.kv_heads, shape.head_dim,
              shape.norm_eps, shape.rope_theta);
}
// Feed-forwards of one shape that rows choose among. router (E,C): a row goes through the `active` experts with the
// highest scores router x, weighed by a softmax over these. linears: gate, up, down of each expert (SwiGlu), without
// changes of low rank.
inline Packed pack_mixture(const Tensor& router_EC, const std::vector<Packed>& linears, std::int64_t active) {
  static const auto handle = find("tenon::pack_mixture_v1");
  c10::impl::GenericList list(linears.at(0).type());
  for (const Packed& linear : linears) list.push_back(linear);
  return call(handle, router_EC, std::move(list), active);
}
// x (N,C) -> (N,C).
inline Tensor mixture(const Tensor& x_NC, const Packed& packed) {
  static const auto handle = find("tenon::mixture_v1");
  return call(handle, x_NC, packed).toTensor();
}
// Blocks that follow each other, of one width and BlockShape, as one handle.
inline Packed pack_run(const std::vector<Packed>& blocks) {
  static const auto handle = find("tenon::pack_run_v1");
  c10::impl::GenericList list(blocks.at(0).type());
  for (const Packed& block : blocks) list.push_back(block);
  return call(handle, std::move(list));
}
// A run of blocks over x (N,C); block i keeps its keys and values in slots slot + 2i and slot + 2i + 1.
inline Tensor run(const Tensor& x_NC, const Packed& run, c10::ArrayRef<Span> spans, std::int64_t slot) {
  static const auto handle = find("tenon::run_v1");
  return call(handle, x_NC, run, spans_pointer(spans), span_count(spans), slot).toTensor();
}

} // namespace operators
} // namespace tenon

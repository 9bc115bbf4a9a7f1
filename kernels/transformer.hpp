// The operators of a transformer, in their plain form: one LibTorch call after another, no gradient.
// They define what every faster form must compute.
//
// Shapes: N rows of all spans, packed; H heads, G key and value heads, D head width; C model width.
// Thread: any; a sequence's state is used by one call at a time.
#pragma once

#include "kernels/packed.hpp"
#include "kernels/sequence_state.hpp"

#include <span>

namespace tenon {

using Spans = std::span<const tenon_span>;

at::Tensor linear(const at::Tensor& x_NC, const PackedLinear& packed);

// down(silu(gate(x)) * up(x)), or down(gelu(up(x))).
at::Tensor feed_forward(const at::Tensor& x_NC, const PackedFeedForward& packed);

// y = sum over the `active` best e of w_e * expert_e(x), w a softmax over their scores in router x.
at::Tensor mixture(const at::Tensor& x_NC, const PackedMixture& packed);

// x / sqrt(mean(x^2) + eps) * weight, over the last dimension.
at::Tensor rms_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, double eps);

// (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, over the last dimension.
at::Tensor layer_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, const at::Tensor& bias_C, double eps);

// Rotary positions on pairs (i, i + D/2), at the spans' absolute positions.
at::Tensor rope(const at::Tensor& x_NHD, Spans spans, double theta);

// Causal attention of each span over itself and what its state holds; keys and values are appended first.
at::Tensor attention(const at::Tensor& q_NHD, const at::Tensor& k_NGD, const at::Tensor& v_NGD, Spans spans,
                     std::int64_t slot);

// Blocks of one kind, one after another; block i keeps keys and values in slots slot + 2i and slot + 2i + 1.
at::Tensor run_blocks(const at::Tensor& x_NC, const std::vector<PackedBlock>& blocks, Spans spans, std::int64_t slot);

} // namespace tenon

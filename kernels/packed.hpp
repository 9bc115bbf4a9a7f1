// What stands behind the opaque handles that operators take. Here the plain form: the tensors themselves, borrowed from
// whoever owns the weights, computed by LibTorch in float32.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <optional>
#include <vector>

namespace tenon {

// W x + bias + scale * b (a x); bias, a and b may be absent.
struct PackedLinear {
  at::Tensor weight;
  std::optional<at::Tensor> bias, a, b;
  double scale = 1.0;
};

// With a bias a layer norm, without an RMS norm.
struct PackedNorm {
  at::Tensor weight;
  std::optional<at::Tensor> bias;
};

struct PackedBlock {
  PackedLinear q, k, v, o;
  std::optional<PackedLinear> gate; // absent: the feed-forward is down(gelu(up(x)))
  PackedLinear up, down;
  PackedNorm attention_norm, ffn_norm;
  std::optional<PackedNorm> q_norm, k_norm; // of every head, before it is rotated
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  double norm_eps = 0, rope_theta = 0; // rope_theta 0: nothing is rotated
};

// One class behind every handle, so that a list of handles has one type; which part is filled is its kind.
struct PackedHandle : torch::CustomClassHolder {
  std::optional<PackedLinear> linear;
  std::vector<PackedBlock> blocks; // one: a block; several: a run
};

using PackedPointer = c10::intrusive_ptr<PackedHandle>;

} // namespace tenon

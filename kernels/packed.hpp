// What stands behind the opaque handles that operators take: the tensors themselves, borrowed from whoever owns the
// weights, computed by LibTorch in float32; and, where the weights have a packed form, what our own kernels read.
#pragma once

#include "kernels/cpu/mixture.hpp"
#include "kernels/cpu/transformer_run.hpp"
#include "kernels/packed_forms.hpp"
#include "kernels/sequence_state.hpp"

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
  std::optional<PackedForm> form = {}; // of the weight
  std::optional<at::Tensor> b_RF = {}; // b transposed, where there is a form

  // What the form's kernels read; points into this object's tensors. Requires: form.
  cpu::Linear kernel() const;
};

// A matrix that the host multiplies or looks up itself, and its packed form, looked up once: when it is bound.
struct BoundMatrix {
  at::Tensor weight_FC;
  std::optional<PackedForm> form;

  BoundMatrix(const at::Tensor& weight_FC);
};

// With a bias a layer norm, without an RMS norm.
struct PackedNorm {
  at::Tensor weight;
  std::optional<at::Tensor> bias;
};

struct PackedFeedForward {
  std::optional<PackedLinear> gate; // absent: down(gelu(up(x)))
  PackedLinear up, down;
};

struct PackedBlock {
  PackedLinear q, k, v, o;
  PackedFeedForward ffn;
  PackedNorm attention_norm, ffn_norm;
  std::optional<PackedNorm> q_norm, k_norm; // of every head, before it is rotated
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  double norm_eps = 0, rope_theta = 0; // rope_theta 0: nothing is rotated
};

// Feed-forwards that rows choose among; router (E,C), contiguous.
struct PackedMixture {
  at::Tensor router;
  std::int64_t active = 0;
  std::vector<PackedFeedForward> experts;
  std::vector<cpu::FeedForward> kernels; // of the experts, where every weight has a packed form
};

// One class behind every handle, so that a list of handles has one type; which part is filled is its kind.
struct PackedHandle : torch::CustomClassHolder {
  std::optional<PackedLinear> linear;
  std::optional<PackedMixture> mixture;
  std::vector<PackedBlock> blocks; // one: a block; several: a run
  // Of a run whose every weight has a packed form: what the kernels read, which points into `blocks`, and how they keep
  // keys and values.
  std::vector<cpu::Block> kernels;
  cpu::KeyFormat keys = cpu::KeyFormat::float32;
  std::shared_ptr<const RowForm> key_form, value_form;
};

using PackedPointer = c10::intrusive_ptr<PackedHandle>;

} // namespace tenon

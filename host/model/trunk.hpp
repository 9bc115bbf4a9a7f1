// Trunk and head: the frozen ends of the model, made of the same blocks as everybody's experts.
// Shapes: N rows of all sequences, packed; C model width; V vocabulary.
// Thread: one call at a time per sequence, and with a gradient one call at a time; weights are read only.
#pragma once

#include "host/model/batch.hpp"
#include "kernels/packed.hpp"

#include <tenon/nn/block_kind.hpp>

#include <functional>
#include <memory>
#include <string>

namespace tenon {

namespace nn {
class Norm;
class Transformer;
} // namespace nn

// The numbers that say how a model computes.
struct ModelShape {
  std::int64_t width = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn_width = 0, vocab = 0;
  double norm_eps = 1e-5, rope_theta = 10000.0; // rope_theta counts only with rotary positions
  bool tied = false;                            // unembedding is the embedding
  nn::BlockKind block = {};
  std::int64_t positions = 0; // rows of the learned position embedding; 0: there is none, positions are rotary
  bool operator==(const ModelShape&) const = default;
};

// Names a weight ("blocks.3.attention.q.weight", layers counted in the whole model) and gives its tensor.
using WeightSource = std::function<at::Tensor(const std::string& name)>;

// Layers [first, last) of a model, bound to its weights.
std::shared_ptr<nn::Transformer> bind_layers(const ModelShape& shape, std::int64_t first, std::int64_t last,
                                             const WeightSource& weights);

class Trunk {
 public:
  // Embedding and layers [0, last).
  Trunk(const ModelShape& shape, std::int64_t last, const WeightSource& weights);
  // h (N,C): the residual stream at the lower cut. No gradient. Errors: usage, beyond the learned positions.
  at::Tensor forward(const Batch& batch) const;
  ModuleLayout layout() const;
  PackedPointer run() const; // its layers; null where there are none

 private:
  at::Tensor embedded(const Batch& batch) const;

  BoundMatrix embedding_VC_;
  at::Tensor positions_PC_; // undefined where positions are rotary
  std::shared_ptr<nn::Transformer> layers_;
};

class Head {
 public:
  // Layers [first, L), last norm, unembedding.
  Head(const ModelShape& shape, std::int64_t first, const WeightSource& weights);
  // logits (N,V).
  at::Tensor forward(const at::Tensor& m_NC, const Batch& batch) const;
  // The last norm's output (N,C), from which logits are one product.
  at::Tensor features(const at::Tensor& m_NC, const Batch& batch) const;
  // For whole sequences of one length: as features, with gradient towards m and none kept for the weights.
  at::Tensor features_with_gradient(const at::Tensor& m_NC, const Batch& batch) const;
  at::Tensor logits(const at::Tensor& features_NC) const;
  const at::Tensor& unembedding_VC() const { return unembedding_VC_.weight_FC; }
  ModuleLayout layout() const;
  PackedPointer run() const; // its layers; null where there are none

 private:
  at::Tensor read_rows(const at::Tensor& m_NC, const Batch& batch) const;

  std::shared_ptr<nn::Norm> norm_;
  BoundMatrix unembedding_VC_;
  std::shared_ptr<nn::Transformer> layers_;
};

} // namespace tenon

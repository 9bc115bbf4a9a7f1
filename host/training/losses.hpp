// Losses over a large vocabulary, in chunks of positions: the logits of a whole sequence (T,V) never exist at once.
//
// Each chunk's logits give its loss and, where a gradient is wanted, at once the gradient towards the features; what is
// kept for the backward pass is (N,C). The unembedding is frozen.
// Shapes: N positions, C width, V vocabulary. Thread: one at a time per object (it keeps its chunk buffers).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tenon {

class VocabularyLoss {
 public:
  // bfloat16: products in bfloat16, everything else float32. chunk_bytes bounds one buffer of logits.
  explicit VocabularyLoss(const at::Tensor& unembedding_VC, bool bfloat16 = false,
                          std::int64_t chunk_bytes = std::int64_t{64} << 20);

  // Mean over positions of -log p(target). Scalar float32, differentiable towards the features.
  at::Tensor cross_entropy(const at::Tensor& features_NC, const at::Tensor& targets_N) const;
  // Mean over positions of KL(base || p), base given by its own features, which get no gradient.
  at::Tensor divergence(const at::Tensor& features_NC, const at::Tensor& base_features_NC) const;

  // -log p(target) of each position, (N) float32. No gradient.
  at::Tensor per_position(const at::Tensor& features_NC, const at::Tensor& targets_N) const;

  // Each fills gradient_NC (towards the features, of the mean) where it is defined, and returns the mean. For the
  // nodes.
  double cross_entropy_into(const at::Tensor& features_NC, const at::Tensor& targets_N, at::Tensor gradient_NC) const;
  double divergence_into(const at::Tensor& features_NC, const at::Tensor& base_features_NC,
                         at::Tensor gradient_NC) const;

 private:
  std::int64_t chunks(std::int64_t rows) const;
  at::Tensor buffer(at::Tensor& kept, std::int64_t rows, at::ScalarType type) const;
  at::Tensor logits(const at::Tensor& features_nC) const; // (n,V), in the products' precision
  at::Tensor operand(const at::Tensor& x) const;          // x as products take it
  // log softmax of the features' logits, (n,V), in the named buffer.
  at::Tensor log_probabilities(const at::Tensor& features_nC, at::Tensor& kept) const;
  at::Tensor towards_features(const at::Tensor& gradient_nV) const;

  bool rounds_; // products are float32's, of numbers rounded to bfloat16
  at::Tensor unembedding_VC_;
  std::int64_t chunk_rows_;
  mutable at::Tensor logits_, first_, second_, third_; // buffers
};

} // namespace tenon

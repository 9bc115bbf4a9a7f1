#include "host/model/trunk.hpp"

#include <tenon/nn/transformer.hpp>

namespace tenon {
namespace {

ModuleLayout layout_of(const nn::Transformer& layers) {
  StateLayout state;
  layers.add_state(state);
  ModuleLayout out;
  for (const StateLayout::Entry& entry : state.entries())
    out.push_back({entry.name, entry.kind == TENON_STATE_PER_POSITION, entry.shape});
  return out;
}

Tensor embed(const Tensor& embedding_VC, const Tensor& tokens_N) { return embedding_VC.index_select(0, tokens_N); }

} // namespace

std::shared_ptr<nn::Transformer> bind_layers(const ModelShape& shape, std::int64_t first, std::int64_t last,
                                             const WeightSource& weights) {
  const nn::TransformerOptions options{shape.width,    last - first,    shape.heads,    shape.kv_heads,
                                       shape.head_dim, shape.ffn_width, shape.norm_eps, shape.rope_theta};
  auto layers = std::make_shared<nn::Transformer>(options);
  for (std::int64_t i = first; i < last; ++i)
    for (auto& parameter : layers->blocks[i - first]->named_parameters()) {
      parameter.value().set_requires_grad(false);
      parameter.value().set_data(weights("blocks." + std::to_string(i) + "." + parameter.key()));
    }
  layers->train(false);
  return layers;
}

Trunk::Trunk(const ModelShape& shape, std::int64_t last, const WeightSource& weights)
    : embedding_VC_(weights("embed.weight")), layers_(bind_layers(shape, 0, last, weights)) {}

Tensor Trunk::forward(const Batch& batch) const {
  at::NoGradGuard no_grad;
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.trunk; });
  Tensor h_NC = layers_->forward(embed(embedding_VC_, batch.tokens_N), spans);
  for (const BatchRows& row : batch.rows)
    if (row.sequence) row.sequence->trunk.advance(row.length);
  return h_NC;
}

ModuleLayout Trunk::layout() const { return layout_of(*layers_); }

Head::Head(const ModelShape& shape, std::int64_t first, const WeightSource& weights)
    : norm_eps_(shape.norm_eps),
      norm_C_(weights("norm.weight")),
      unembedding_VC_(weights(shape.tied ? "embed.weight" : "unembed.weight")),
      layers_(bind_layers(shape, first, shape.layers, weights)) {}

Tensor Head::forward(const Tensor& m_NC, const Batch& batch) const { return logits(features(m_NC, batch)); }

Tensor Head::features(const Tensor& m_NC, const Batch& batch) const {
  at::NoGradGuard no_grad;
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.head; });
  Tensor features_NC = operators::rms_norm(layers_->forward(m_NC, spans), norm_C_, norm_eps_);
  for (const BatchRows& row : batch.rows)
    if (row.sequence) row.sequence->head.advance(row.length);
  return features_NC;
}

Tensor Head::features_with_gradient(const Tensor& m_NC, const Batch& batch) const {
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.head; });
  layers_->train(true);
  Tensor h_NC = layers_->forward(m_NC, spans);
  layers_->train(false);
  return h_NC * at::rsqrt(h_NC.square().mean(-1, true) + norm_eps_) * norm_C_;
}

Tensor Head::logits(const Tensor& features_NC) const {
  return operators::linear(features_NC, operators::pack_linear(unembedding_VC_));
}

ModuleLayout Head::layout() const { return layout_of(*layers_); }

} // namespace tenon

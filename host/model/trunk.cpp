#include "host/model/trunk.hpp"

#include "kernels/packed_operators.hpp"
#include "registry/base/error.hpp"

#include <tenon/nn/transformer.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

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

PackedPointer run_of(nn::Transformer& layers) {
  return layers.blocks.empty() ? PackedPointer() : layers.packed().toCustomClass<PackedHandle>();
}

Tensor sized(const WeightSource& weights, const std::string& name, at::IntArrayRef sizes) {
  const Tensor tensor = weights(name);
  if (tensor.sizes() != sizes)
    throw Error(Code::integrity, "model",
                fmt::format("found {} of ({}), its configuration needs ({})", name, fmt::join(tensor.sizes(), ", "),
                            fmt::join(sizes, ", ")));
  return tensor;
}

// Frozen: the weights are borrowed from wherever they lie, and take no gradient.
void bind_module(torch::nn::Module& module, const std::string& prefix, const WeightSource& weights) {
  for (auto& parameter : module.named_parameters()) {
    parameter.value().set_requires_grad(false);
    parameter.value().set_data(sized(weights, prefix + parameter.key(), parameter.value().sizes()));
  }
  module.train(false);
}

std::shared_ptr<nn::Norm> bind_norm(const ModelShape& shape, const WeightSource& weights) {
  const auto norm = nn::make_norm(shape.block.norm, shape.width, shape.norm_eps);
  bind_module(*norm, "norm.", weights);
  return norm;
}

// Absolute positions of all rows, (N) int64.
Tensor positions_of(const Batch& batch, std::int64_t limit) {
  Tensor positions_N = at::empty({batch.size()}, at::kLong);
  auto* out = positions_N.data_ptr<std::int64_t>();
  for (const BatchRows& row : batch.rows) {
    if (row.position + row.length > limit)
      throw Error(Code::usage, "trunk",
                  "found a text of " + std::to_string(row.position + row.length) + " tokens, this model learned " +
                      std::to_string(limit) + " positions",
                  "give a shorter text, or train and evaluate on shorter sequences");
    std::iota(out + row.offset, out + row.offset + row.length, row.position);
  }
  return positions_N;
}

// Modules that train while this lives.
class Training {
 public:
  Training(nn::Transformer& layers, nn::Norm& norm) : layers_(layers), norm_(norm) { set(true); }
  Training(const Training&) = delete;
  ~Training() { set(false); }

 private:
  void set(bool on) const { layers_.train(on), norm_.train(on); }
  nn::Transformer& layers_;
  nn::Norm& norm_;
};

} // namespace

std::shared_ptr<nn::Transformer> bind_layers(const ModelShape& shape, std::int64_t first, std::int64_t last,
                                             const WeightSource& weights) {
  const nn::TransformerOptions options{shape.width,    last - first,     shape.heads,
                                       shape.kv_heads, shape.head_dim,   shape.ffn_width,
                                       shape.norm_eps, shape.rope_theta, shape.block};
  auto layers = std::make_shared<nn::Transformer>(options);
  for (std::int64_t i = first; i < last; ++i)
    bind_module(*layers->blocks[i - first], "blocks." + std::to_string(i) + ".", weights);
  layers->train(false);
  return layers;
}

Trunk::Trunk(const ModelShape& shape, std::int64_t last, const WeightSource& weights)
    : embedding_VC_(sized(weights, "embed.weight", {shape.vocab, shape.width})),
      layers_(bind_layers(shape, 0, last, weights)) {
  if (shape.positions > 0) positions_PC_ = sized(weights, "positions.weight", {shape.positions, shape.width});
}

Tensor Trunk::embedded(const Batch& batch) const {
  const Tensor token_NC = looked_up_rows(embedding_VC_, batch.tokens_N);
  if (!positions_PC_.defined()) return token_NC;
  return token_NC + positions_PC_.index_select(0, positions_of(batch, positions_PC_.size(0)));
}

Tensor Trunk::forward(const Batch& batch) const {
  at::NoGradGuard no_grad;
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.trunk; });
  Tensor h_NC = layers_->forward(embedded(batch), spans);
  for (const BatchRows& row : batch.rows)
    if (row.sequence) row.sequence->trunk.advance(row.length);
  return h_NC;
}

ModuleLayout Trunk::layout() const { return layout_of(*layers_); }
PackedPointer Trunk::run() const { return run_of(*layers_); }

Head::Head(const ModelShape& shape, std::int64_t first, const WeightSource& weights)
    : norm_(bind_norm(shape, weights)),
      unembedding_VC_(sized(weights, shape.tied ? "embed.weight" : "unembed.weight", {shape.vocab, shape.width})),
      layers_(bind_layers(shape, first, shape.layers, weights)) {}

Tensor Head::forward(const Tensor& m_NC, const Batch& batch) const { return logits(features(m_NC, batch)); }

Tensor Head::features(const Tensor& m_NC, const Batch& batch) const {
  at::NoGradGuard no_grad;
  Tensor features_NC = norm_->forward(read_rows(m_NC, batch));
  for (const BatchRows& row : batch.rows)
    if (row.sequence) row.sequence->head.advance(row.length);
  return features_NC;
}

// The layers' output; rows that nobody reads are not finished.
Tensor Head::read_rows(const Tensor& m_NC, const Batch& batch) const {
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.head; });
  const bool unread = std::any_of(batch.rows.begin(), batch.rows.end(), [](const auto& row) { return row.unread > 0; });
  const PackedPointer layers = unread ? run() : PackedPointer();
  if (!layers || layers->kernels.empty()) return layers_->forward(m_NC, spans);
  std::vector<RunOfSpan> runs;
  for (const BatchRows& row : batch.rows) runs.push_back({layers.get(), 0, row.unread});
  return packed_runs(m_NC, runs, spans);
}

Tensor Head::features_with_gradient(const Tensor& m_NC, const Batch& batch) const {
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.head; });
  const Training training(*layers_, *norm_);
  return norm_->forward(layers_->forward(m_NC, spans));
}

Tensor Head::logits(const Tensor& features_NC) const { return logits_of(features_NC, unembedding_VC_); }

ModuleLayout Head::layout() const { return layout_of(*layers_); }
PackedPointer Head::run() const { return run_of(*layers_); }

} // namespace tenon

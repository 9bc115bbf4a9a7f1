#include "host/model/rejoin.hpp"

#include "registry/base/error.hpp"

#include <ATen/ATen.h>
#include <tenon/nn/transformer.hpp>

#include <charconv>
#include <string_view>

namespace tenon {
namespace {

constexpr std::string_view kBlocks = "blocks.";

} // namespace

std::int64_t layer_of(const std::string& name) {
  std::int64_t layer = -1;
  if (name.starts_with(kBlocks)) std::from_chars(name.data() + kBlocks.size(), name.data() + name.size(), layer);
  return layer;
}

std::string name_in_stack(const std::string& name, std::int64_t first) {
  const std::int64_t layer = layer_of(name);
  return layer < 0 ? name
                   : std::string(kBlocks) + std::to_string(layer - first) + name.substr(name.find('.', kBlocks.size()));
}

WeightSource rejoined_weights(const Weights& ends, const Weights& middle, const Cut& cut) {
  return [&ends, &middle, cut](const std::string& name) {
    const std::int64_t layer = layer_of(name);
    return layer < cut.first || layer >= cut.last ? ends.at(name) : middle.at(name_in_stack(name, cut.first));
  };
}

at::Tensor uncut_logits(const ModelShape& shape, const WeightSource& weights, const Batch& batch) {
  at::NoGradGuard no_grad;
  const Trunk all(shape, shape.layers, weights);
  return Head(shape, shape.layers, weights).forward(all.forward(batch), batch);
}

at::Tensor rejoined_logits(const ModelShape& shape, const Cut& cut, const WeightSource& weights, const Batch& batch) {
  at::NoGradGuard no_grad;
  const at::Tensor h_NC = Trunk(shape, cut.first, weights).forward(batch);
  const auto middle = bind_layers(shape, cut.first, cut.last, weights);
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.experts.at(0); });
  return Head(shape, cut.last, weights).forward(middle->forward(h_NC, spans), batch);
}

std::int64_t prove_rejoined(const ModelShape& shape, const Cut& cut, const WeightSource& weights, const Shard& text) {
  const auto count = static_cast<std::int64_t>(std::min<std::size_t>(64, text.tokens().size()));
  at::Tensor tokens_1T = at::empty({1, count}, at::kLong);
  std::copy_n(text.tokens().begin(), count, tokens_1T.data_ptr<std::int64_t>());
  const Batch batch = Batch::whole(tokens_1T);
  if (!at::equal(uncut_logits(shape, weights, batch), rejoined_logits(shape, cut, weights, batch)))
    throw Error(Code::bug, "import", "the rejoined model's logits differ from the uncut model's");
  return count;
}

} // namespace tenon

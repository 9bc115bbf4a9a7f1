#include "host/inference/cost.hpp"

#include "kernels/packed_forms.hpp"
#include "kernels/packed_operators.hpp"

#include <ATen/ATen.h>

#include <stdexcept>

namespace tenon {
namespace {

// None where it was never asked for, and for what cannot have it: such matrices, as those of a low-rank change, are
// computed in float32, or the run itself refuses them.
std::optional<PackedForm> form_of(const at::Tensor& weights) {
  try {
    return packed_form(weights.data_ptr<float>(), weights.size(0), weights.size(1));
  } catch (const std::runtime_error&) {
    return std::nullopt;
  }
}

const char* unembedding(const Model& model) { return model.shape().tied ? "embed.weight" : "unembed.weight"; }

Cost seen_cost_of(const PackedHandle& run) {
  Cost cost;
  cost.bytes = static_cast<double>(kept_numbers(run)) * sizeof(float);
  const bool packed = !run.kernels.empty();
  double& products = !packed || run.keys == cpu::KeyFormat::float32 ? cost.float32
                     : run.keys == cpu::KeyFormat::int8             ? cost.int8
                                                                    : cost.bf16;
  products = static_cast<double>(attention_operations(run));
  return cost;
}

} // namespace

Cost& Cost::operator+=(const Cost& other) {
  bytes += other.bytes, float32 += other.float32, bf16 += other.bf16, int8 += other.int8;
  return *this;
}

Cost Cost::times(double share) const { return {bytes * share, float32 * share, bf16 * share, int8 * share}; }

double Cost::computing(const cpu::Limits& limits) const {
  double seconds = 0;
  for (const auto& [operations, peak] :
       {std::pair(float32, limits.float32), std::pair(bf16, limits.bf16), std::pair(int8, limits.int8)}) {
    if (operations == 0) continue;
    if (peak == 0) return 0;
    seconds += operations / (1e9 * peak);
  }
  return seconds;
}

Cost cost_of(const at::Tensor& weights) {
  if (weights.dim() != 2) return {};
  const double operations = 2.0 * static_cast<double>(weights.numel());
  const auto form = form_of(weights);
  if (!form) return {static_cast<double>(weights.nbytes()), operations, 0, 0};
  const cpu::PackedMatrix& matrix = form->matrix;
  const auto bytes = static_cast<double>(cpu::packed_bytes(matrix.format, matrix.outputs, matrix.inputs).value_or(0));
  if (cpu::reads_bf16(matrix.format)) return {bytes, 0, operations, 0};
  return {bytes, 0, 0, operations};
}

Cost layers_cost(const Model& model) {
  Cost sum;
  for (const std::string& name : model.weights().names())
    if (name.starts_with("blocks.")) sum += cost_of(model.weights().at(name));
  return sum;
}

Cost unembedding_cost(const Model& model) { return cost_of(model.weights().at(unembedding(model))); }

Cost expert_cost(const LoadedExpert& expert) {
  Cost sum;
  for (const ExpertParameter& parameter : expert.parameters()) sum += cost_of(parameter.tensor.detach());
  return sum;
}

Cost seen_cost(const Model& model) {
  Cost sum;
  for (const PackedPointer& run : {model.trunk().run(), model.head().run()})
    if (run) sum += seen_cost_of(*run);
  return sum;
}

Cost seen_cost(const LoadedExpert& expert) {
  if (expert.run()) return seen_cost_of(*expert.run()->blocks);
  return {static_cast<double>(expert.kept_numbers()) * sizeof(float), 0, 0, 0};
}

} // namespace tenon

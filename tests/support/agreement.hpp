// How close products in a format come to float32, teacher-forced: for the test on a small model and the bench on real
// ones.
#pragma once

#include "host/composition/composition.hpp"
#include "kernels/packed_forms.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace tenon::test {

// The values that kernels compute with, as float32; the tensor itself where it has no packed form.
inline at::Tensor dequantised(const at::Tensor& weights) {
  if (weights.dim() != 2) return weights;
  const auto form = packed_form(weights.data_ptr<float>(), weights.size(0), weights.size(1));
  if (!form) return weights;
  at::Tensor out = at::empty(weights.sizes(), at::kFloat);
  const auto inputs = static_cast<std::size_t>(weights.size(1));
  for (std::int64_t row = 0; row < weights.size(0); ++row)
    cpu::unpack_row(form->matrix, row, {out.data_ptr<float>() + row * weights.size(1), inputs});
  return out;
}

// What float32 multiplies by instead of a matrix of the packed model's.
using Multiplied = std::function<at::Tensor(const at::Tensor&)>;

// The model in float32 on such matrices. A tied embedding is looked up as it is and multiplied as packed, so here the
// two part. Writes its weights to `path`; of `files` it takes tokenizer and normalization.
inline std::shared_ptr<const Model> model_on(const Model& packed, ModelFiles files, const std::filesystem::path& path,
                                             const Multiplied& multiplied) {
  const Weights& weights = packed.weights();
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const std::string& name : weights.names())
    tensors.emplace_back(name, name == "embed.weight" ? weights.at(name) : multiplied(weights.at(name)));
  ModelManifest manifest = packed.manifest();
  if (packed.shape().tied) tensors.emplace_back("unembed.weight", multiplied(weights.at("embed.weight")));
  manifest.config["tied_embedding"] = false;
  files.weights = path;
  write_weights(path, tensors);
  return std::make_shared<const Model>(manifest, files, path.parent_path());
}

// The same of an expert: `expert`, of the same kind, computes in float32 on such matrices of the packed one.
inline void bind_on(LoadedExpert& expert, LoadedExpert& packed, const Multiplied& multiplied) {
  for (const ExpertParameter& parameter : packed.parameters())
    expert.bind(parameter.name, multiplied(parameter.tensor.detach()));
  expert.prepare(TENON_INFERENCE);
}

// Sums over the positions of texts.
struct Agreement {
  double positions = 0, equal = 0, lead = 0, kl = 0, nll = 0, nll_reference = 0;

  void add(const at::Tensor& logits_TV, const at::Tensor& reference_TV, const at::Tensor& tokens_T) {
    const std::int64_t scored = tokens_T.size(0) - 1;
    const at::Tensor p = reference_TV.narrow(0, 0, scored).log_softmax(-1),
                     q = logits_TV.narrow(0, 0, scored).log_softmax(-1);
    const at::Tensor differs = p.argmax(-1).ne(q.argmax(-1)), next = tokens_T.narrow(0, 1, scored).unsqueeze(1);
    const at::Tensor two = std::get<0>(p.topk(2, -1));
    const at::Tensor leads = (two.select(1, 0) - two.select(1, 1)) * differs;
    positions += static_cast<double>(scored), equal += static_cast<double>(scored) - differs.sum().item<double>();
    lead = std::max(lead, leads.max().item<double>());
    kl += (p.exp() * (p - q)).sum(c10::nullopt, false, at::kDouble).item<double>();
    nll -= q.gather(1, next).sum(c10::nullopt, false, at::kDouble).item<double>();
    nll_reference -= p.gather(1, next).sum(c10::nullopt, false, at::kDouble).item<double>();
  }

  // By how much the perplexity is above the reference's; the divergence from it, in nats.
  double worse_percent() const { return 100 * (std::exp((nll - nll_reference) / positions) - 1); }
  double mean_kl() const { return kl / positions; }
};

} // namespace tenon::test

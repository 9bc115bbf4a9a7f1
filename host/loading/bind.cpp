#include "host/loading/bind.hpp"

#include "host/loading/rules.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

at::Tensor find(const WeightRecord& record, const Weights* own, const Weights* base, const std::string& title) {
  const auto colon = record.source.find(':');
  const std::string place = record.source.substr(0, colon), name = record.source.substr(colon + 1);
  const Weights* weights = place == "base" ? base : own;
  if (!weights || !weights->has(name))
    throw Error(Code::integrity, "TN-P20 weights",
                title + ": " + record.name + " should be " + record.source + ", which is not there",
                "publish the expert again from its training folder");
  return weights->at(name);
}

void refuse_extra(const ExpertManifest& manifest, const Weights* own, const std::string& title) {
  if (!own) return;
  for (const std::string& name : own->names()) {
    bool used = false;
    for (const WeightRecord& record : manifest.weights) used = used || record.source == "file:" + name;
    if (!used)
      throw Error(Code::integrity, "TN-P20 weights",
                  title + ": the file holds " + name + ", which expert.json does not name",
                  "publish the expert again from its training folder");
  }
}

} // namespace

std::vector<WeightRecord> weight_records(const LoadedExpert& expert) {
  std::vector<WeightRecord> records;
  for (const ExpertParameter& parameter : expert.parameters())
    records.push_back({parameter.name, parameter.tensor.sizes().vec(), "float32",
                       parameter.shared ? "base:" + *parameter.shared : "file:" + parameter.name});
  return records;
}

void bind_weights(LoadedExpert& expert, const ExpertManifest& manifest, const Weights* own, const Weights* base) {
  Candidate candidate;
  candidate.title = expert.title();
  candidate.expert = &manifest;
  candidate.parameters = weight_records(expert);
  if (const auto refusal = first_refusal(candidate, 9, 9)) throw refusal->to_error();
  refuse_extra(manifest, own, expert.title());
  for (const WeightRecord& record : manifest.weights) {
    const at::Tensor tensor = find(record, own, base, expert.title());
    if (tensor.sizes() != at::IntArrayRef(record.shape))
      throw Error(Code::integrity, "TN-P20 weights",
                  expert.title() + ": " + record.name + " in the file has another shape than expert.json says",
                  "publish the expert again from its training folder");
    expert.bind(record.name, tensor);
  }
}

} // namespace tenon

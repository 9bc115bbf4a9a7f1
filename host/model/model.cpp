#include "host/model/model.hpp"

#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

Tokenizer read_tokenizer(const std::filesystem::path& path, const std::string& digest) {
  Tokenizer tokenizer = Tokenizer::from_json(read_file(path), path.filename().string());
  if (tokenizer.digest() != digest)
    throw Error(Code::integrity, "model", "found tokenizer " + tokenizer.digest() + ", the manifest says " + digest);
  return tokenizer;
}

WeightSource source_of(const Weights& weights) {
  return [&weights](const std::string& name) { return weights.at(name); };
}

} // namespace

json::object shape_to_json(const ModelShape& shape) {
  return {{"width", shape.width},        {"layers", shape.layers},     {"heads", shape.heads},
          {"kv_heads", shape.kv_heads},  {"head_dim", shape.head_dim}, {"ffn_width", shape.ffn_width},
          {"vocab", shape.vocab},        {"norm_eps", shape.norm_eps}, {"rope_theta", shape.rope_theta},
          {"tied_embedding", shape.tied}};
}

ModelShape shape_from_json(const json::object& config, const std::string& where) {
  const json::value value = config;
  const JsonReader reader(value, where);
  ModelShape shape;
  shape.width = reader.at("width").integer();
  shape.layers = reader.at("layers").integer();
  shape.heads = reader.at("heads").integer();
  shape.kv_heads = reader.at("kv_heads").integer();
  shape.head_dim = reader.at("head_dim").integer();
  shape.ffn_width = reader.at("ffn_width").integer();
  shape.vocab = reader.at("vocab").integer();
  shape.norm_eps = reader.at("norm_eps").number();
  shape.rope_theta = reader.at("rope_theta").number();
  shape.tied = reader.at("tied_embedding").boolean();
  return shape;
}

json::object middle_config(const ModelShape& shape, std::int64_t first, std::int64_t last) {
  return {{"blocks", last - first},        {"heads", shape.heads},         {"kv_heads", shape.kv_heads},
          {"head_dim", shape.head_dim},    {"ffn_width", shape.ffn_width}, {"norm_eps", shape.norm_eps},
          {"rope_theta", shape.rope_theta}};
}

Statistics read_statistics(const std::filesystem::path& path) {
  const Weights file = Weights::open(path, "", {});
  return {file.at("mean"), file.at("deviation")};
}

void write_statistics(const std::filesystem::path& path, const Statistics& statistics) {
  write_weights(path, {{"mean", statistics.mean_C}, {"deviation", statistics.deviation_C}});
}

Model::Model(ModelManifest manifest, const ModelFiles& files, const std::filesystem::path& cache)
    : manifest_(std::move(manifest)),
      files_(files),
      shape_(shape_from_json(manifest_.config, "model.json")),
      weights_(Weights::open(files.weights, files.weights_digest, cache)),
      tokenizer_(read_tokenizer(files.tokenizer, manifest_.contract.tokenizer_digest)),
      statistics_(read_statistics(files.normalization)),
      trunk_(shape_, manifest_.contract.cut.first, source_of(weights_)),
      head_(shape_, manifest_.contract.cut.last, source_of(weights_)) {}

Shard Model::calibration() const {
  if (files_.calibration.empty())
    throw Error(Code::not_found, manifest_.name, "this model carries no calibration text",
                "import it again with --calibration DIR");
  return Shard::open(files_.calibration);
}

std::string Model::memory_digest() const {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const std::string& name : weights_.names()) tensors.emplace_back(name, weights_.at(name));
  return tensors_digest(tensors);
}

std::string tensors_digest(const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  Sha256 hash;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor value = tensor.detach().contiguous();
    hash.field(name).update({static_cast<const std::byte*>(value.data_ptr()), value.nbytes()});
  }
  return "sha256:" + hash.hex();
}

} // namespace tenon

// The frozen ends of a model: trunk, head, tokenizer, and the statistics of h over its calibration text D_0.
// Thread: immutable; any.
#pragma once

#include "host/formats/shards.hpp"
#include "host/formats/tokenizer.hpp"
#include "host/model/trunk.hpp"
#include "host/model/weights.hpp"
#include "registry/manifest.hpp"

#include <filesystem>

namespace tenon {

// The paths of a model package's files, wherever they lie.
struct ModelFiles {
  std::filesystem::path weights, tokenizer, normalization, calibration; // calibration may be empty
  std::string weights_digest;                                           // of the file
  Format format = Format::float32;                                      // of products
  std::function<void(std::uint64_t, std::uint64_t)> progress = {};      // bytes, while a file is derived
};

// The JSON of a model's "config", and back. Errors: integrity.
json::object shape_to_json(const ModelShape& shape);
ModelShape shape_from_json(const json::object& config, const std::string& where);
// The configuration of tenon.transformer for layers [first, last) of this model.
json::object middle_config(const ModelShape& shape, std::int64_t first, std::int64_t last);

struct Statistics {
  at::Tensor mean_C, deviation_C; // of h over D_0
};
Statistics read_statistics(const std::filesystem::path& path);
void write_statistics(const std::filesystem::path& path, const Statistics& statistics);

class Model {
 public:
  // Errors: integrity (a file disagrees with the manifest), as of reading.
  Model(ModelManifest manifest, const ModelFiles& files, const std::filesystem::path& cache);

  const ModelManifest& manifest() const { return manifest_; }
  const ModelShape& shape() const { return shape_; }
  const ModelContract& contract() const { return manifest_.contract; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const Statistics& statistics() const { return statistics_; }
  const Trunk& trunk() const { return trunk_; }
  const Head& head() const { return head_; }
  // The head with its matrices rounded to bfloat16, for training under autocast: a copy.
  Head head_in_bfloat16() const;
  const Weights& weights() const { return weights_; } // of trunk and head
  Format format() const { return files_.format; }     // of products
  // D_0 as tokens. Errors: not_found where the model was imported without --calibration.
  Shard calibration() const;
  // A digest of the tensors in memory, to prove that nothing changed them.
  std::string memory_digest() const;

 private:
  ModelManifest manifest_;
  ModelFiles files_;
  ModelShape shape_;
  Weights weights_;
  Tokenizer tokenizer_;
  Statistics statistics_;
  Trunk trunk_;
  Head head_;
};

// A digest of tensors in memory, in the order given.
std::string tensors_digest(const std::vector<std::pair<std::string, at::Tensor>>& tensors);

} // namespace tenon

// model.json and expert.json as typed values, each checked against its own JSON Schema (draft 7).
//
// The model contract, in one place: the digest of trunk and head weights, cut, width, tokenizer, dtype, positions, and
// the base's digest. An expert repeats the contract it was made for; contract_refusals compares the two sides.
// A plugin's manifest is its facts, whose schema belongs to who reads them.
// Thread: values; any thread.
#pragma once

#include "registry/base/error.hpp"
#include "registry/base/json.hpp"
#include "registry/base/schema.hpp"
#include "registry/version.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tenon {

struct Cut {
  std::int64_t first = 0, last = 0; // A:Z; first middle layer included, last excluded

  // "10:20". Errors: usage.
  static Cut parse(const std::string& text);
  std::string text() const;
  bool operator==(const Cut&) const = default;
};

struct ManifestFile {
  std::string path, role;
  bool operator==(const ManifestFile&) const = default;
};

// What joins, or does not. The base is itself an expert; its base_digest is the digest of its own weights.
struct ModelContract {
  std::string model_digest; // names, types, shapes and stored bytes of trunk and head
  std::string base_digest;  // the same over the base's weights
  Cut cut;
  std::int64_t width = 0;
  std::string tokenizer_digest;
  std::string dtype;     // "float32", "bfloat16"
  std::string positions; // "rope-absolute", "learned-absolute"
  bool operator==(const ModelContract&) const = default;
};

struct Calibration {
  std::int64_t tokens = 0;
  std::vector<std::string> kinds; // "prose", "code", "json", ...
  std::string digest;
  bool operator==(const Calibration&) const = default;
};

struct ModelManifest {
  std::string name;
  Version version;
  std::string summary, license;
  std::string family; // "llama", "mistral", "qwen2", "qwen3", "gpt2"
  std::int64_t layers = 0, vocab = 0;
  ModelContract contract;
  std::string base_name;
  std::optional<Version> base_version; // where absent, the highest published base with base_digest
  std::optional<Calibration> calibration;
  std::vector<ManifestFile> files;
  json::object config;

  static ModelManifest parse(const json::value& value, const std::string& where);
  json::object to_json() const;
};

struct WeightRecord {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string dtype;
  std::string source; // "file:<tensor>" in weights.safetensors, or "base:<tensor>" shared with the base
  bool operator==(const WeightRecord&) const = default;
};

struct ExpertManifest {
  std::string name;
  Version version;
  std::string summary, license;
  PackageRequest plugin;    // name and range
  std::string architecture; // "tenon.low_rank"
  json::object config;
  ModelContract contract;
  std::string context = "causal"; // "token", "window(n)", "causal", "recurrent"
  std::vector<std::string> uses;  // "base.output"
  std::vector<WeightRecord> weights;
  std::optional<std::string> row, profile; // digests of row.safetensors, profile.safetensors; the base has none
  json::array evidence;
  json::object provenance;
  std::vector<ManifestFile> files;

  static ExpertManifest parse(const json::value& value, const std::string& where);
  json::object to_json() const;
};

// Errors of parse: integrity, rule TN-R9, the first few problems of the schema, each with its path.
const Schema& model_schema();
const Schema& expert_schema();

// Where the expert's side differs from the model's: one refusal per difference, each naming both sides. Empty: it fits.
std::vector<Refusal> contract_refusals(const std::string& expert, const ModelContract& expert_side,
                                       const std::string& model, const ModelContract& model_side);

} // namespace tenon

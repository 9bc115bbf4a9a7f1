// Turns a source's configuration and tensors into a SourceModel; what the GGUF and Hugging Face readers share.
#pragma once

#include "host/formats/source_model.hpp"

#include <functional>

namespace tenon {

// Errors: integrity, naming the source and the field, for numbers that cannot be a model's.
void check_config(const ModelConfig& config, const std::string& source);

// One tensor a Llama-type model has: our name and its shape. The sources' own names are made from `layer` and `part`.
struct ExpectedTensor {
  std::string name;
  std::int64_t layer; // -1 outside the blocks
  std::string part;   // "embed", "attention.q", "norm", ...
  std::vector<std::size_t> shape;
};

class SourceBuilder {
 public:
  // Finds a tensor by the source's own name for it; nullptr when the source has none.
  using Find = std::function<const StoredTensor*(const std::string& source_name)>;
  // The source's own name of a tensor: ("attention.q", 3) -> "blk.3.attn_q.weight".
  using Rename = std::string (*)(const std::string& part, std::int64_t layer);

  SourceBuilder(std::string name, ModelConfig config);

  void keep(std::shared_ptr<const GgufFile> file) { model_.gguf_ = std::move(file); }
  void keep(std::filesystem::path directory, std::vector<std::shared_ptr<const SafetensorsFile>> shards);

  // Takes every expected tensor, each checked against its shape, then refuses source tensors that were not taken.
  // Errors: integrity for missing or misshapen ones; incompatible for those nobody knows.
  void take(const Find& find, Rename rename, const std::vector<std::string>& source_names);
  // Reorders q and k from rotating neighbours to rotating halves.
  void reorder_rotary_rows();
  SourceModel build();

 private:
  void take_one(const ExpectedTensor& expected, const Find& find, Rename rename);

  SourceModel model_;
  std::unordered_map<std::string, bool> taken_; // by source name
};

} // namespace tenon

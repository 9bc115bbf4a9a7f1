// Turns a source's configuration and tensors into a SourceModel; what the GGUF and Hugging Face readers share.
#pragma once

#include "host/formats/source_model.hpp"

#include <array>

namespace tenon {

// Errors: integrity, naming the source and the field, for numbers that cannot be a model's.
void check_config(const ModelConfig& config, const std::string& source);

// A source's tensors by the source's own names.
using SourceTensors = std::unordered_map<std::string, StoredTensor>;

// A source's own name of a part: the stem's, led by the block's number where there is one, with the same suffix
// (".weight", ".bias"). block: "blk.{}.".
// Requires: the stem is in names.
using StemNames = std::unordered_map<std::string_view, const char*>;
std::string source_name(const StemNames& names, std::string_view part, std::int64_t layer, const char* block);

class SourceBuilder {
 public:
  // The source's own name of a tensor: ("attention.q.weight", 3) -> "blk.3.attn_q.weight"; layer -1 outside the blocks.
  using Rename = std::string (*)(const std::string& part, std::int64_t layer);

  SourceBuilder(std::string name, ModelConfig config);

  void keep(std::shared_ptr<const GgufFile> file) { model_.gguf_ = std::move(file); }
  void keep(std::filesystem::path directory, std::vector<std::shared_ptr<const SafetensorsFile>> shards);

  // Replaces every tensor whose name ends with `ending` by its transpose.
  // Errors: integrity unless it is a matrix; incompatible if it is quantised.
  void transpose(SourceTensors& tensors, std::string_view ending);
  // Replaces every tensor "<a><fused><b>" by three, "<a><parts[i]><b>", each a third of its rows.
  // Errors: integrity when the rows are no multiple of three, or a part is there already.
  void split_rows(SourceTensors& tensors, std::string_view fused, const std::array<std::string_view, 3>& parts);

  // Takes every expected tensor, each checked against its shape, then refuses source tensors that were not taken.
  // Errors: integrity for missing or misshapen ones; incompatible for those nobody knows.
  void take(const SourceTensors& tensors, Rename rename);
  // Reorders q and k from rotating neighbours to rotating halves.
  void reorder_rotary_rows();
  SourceModel build();

 private:
  SourceModel model_;
};

} // namespace tenon

// A model as found in a GGUF file or a Hugging Face directory: one configuration and one set of tensor names, whatever
// the source. Families: Llama, Mistral, Qwen2, Qwen3, GPT-2. What would change the mathematics and is not supported is
// refused by name on opening.
//
// Names, with shapes (C width, D head dimension, F inner width, V vocabulary, P positions):
//   embed.weight (V,C)   norm.weight (C)   unembed.weight (V,C), absent when tied to embed.weight
//   blocks.<i>.attention_norm.weight (C)   blocks.<i>.ffn_norm.weight (C)
//   blocks.<i>.attention.q.weight (heads D, C)   .k and .v (kv_heads D, C)   .o (C, heads D)
//   blocks.<i>.ffn.gate.weight and .up (F,C)   .down (C,F)
// and, as the family's blocks have them:
//   positions.weight (P,C)   blocks.<i>.attention.q_norm.weight and .k_norm (D)
//   <norm or product>.bias, as long as the weight has rows   no ffn.gate
// Rows of q and k always follow Hugging Face's rotary convention (first and second half of a head rotate together);
// GGUF's pairs of neighbours are reordered, whole rows at a time, so no stored number changes.
// Thread: any number of readers.
#pragma once

#include "host/formats/stored_tensor.hpp"

#include <tenon/nn/block_kind.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace tenon {

class GgufFile;

struct ModelConfig {
  std::string family = "llama"; // "llama", "mistral", "qwen2", "qwen3", "gpt2"
  nn::BlockKind block;
  std::int64_t hidden_size = 0; // C
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;       // D
  std::int64_t ffn_size = 0;       // F
  std::int64_t vocab_size = 0;     // V
  std::int64_t context_length = 0; // P, where positions are learned
  double norm_eps = 0;
  double rope_theta = 0; // 0 without rotary positions
  bool tie_embeddings = false;
  std::optional<std::int64_t> bos_id, pad_id;
  std::vector<std::int64_t> eos_ids;
};

class SourceModel {
 public:
  // A .gguf file or a directory with config.json. Errors: those of the readers below; usage for anything else.
  static SourceModel open(const std::filesystem::path& path);
  // Errors: as GgufFile; incompatible, naming key and value, for what is not supported; integrity when tensors are
  // missing, unknown or misshapen.
  static SourceModel open_gguf(const std::filesystem::path& path);
  static SourceModel open_gguf(std::shared_ptr<const GgufFile> file);
  // config.json, and model.safetensors or the shards of model.safetensors.index.json. Errors: likewise.
  static SourceModel open_hf(const std::filesystem::path& directory);

  const ModelConfig& config() const { return config_; }
  const std::string& name() const { return name_; }                     // the path, for messages
  const std::vector<StoredTensor>& tensors() const { return tensors_; } // in the order of the list above, by block
  const StoredTensor* find(std::string_view name) const;                // nullptr when absent
  const StoredTensor& at(std::string_view name) const;                  // Errors: integrity

  // Where the tokenizer is: in the GGUF file, or tokenizer.json in this directory. Exactly one is set.
  const GgufFile* gguf() const { return gguf_.get(); }
  const std::optional<std::filesystem::path>& directory() const { return directory_; }

 private:
  friend class SourceBuilder;
  ModelConfig config_;
  std::string name_;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> index_;
  std::shared_ptr<const GgufFile> gguf_;
  std::optional<std::filesystem::path> directory_;
  std::vector<std::shared_ptr<const SafetensorsFile>> shards_;
  std::vector<std::vector<std::byte>> rewritten_; // of tensors whose numbers stand in another order
};

} // namespace tenon

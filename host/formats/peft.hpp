// A LoRA adapter as Hugging Face's PEFT saves it: adapter_config.json beside adapter_model.safetensors.
//
// For every product it changes, y = W x becomes y = W x + scale * B (A x); scale is alpha / r, or alpha / sqrt(r) where
// the adapter is rank-stabilised (Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732). Options that
// make it compute anything else are refused by name. Whether the modules exist in a model, and whether the shapes fit
// it, is for whoever has the model.
// Shapes: A (rank, in), B (out, rank). Tensors borrow from the file and live as long as the adapter. Thread: immutable.
#pragma once

#include "host/formats/stored_tensor.hpp"
#include "registry/base/json.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tenon {

struct PeftConfig {
  std::string base_model; // as its author named it; may be empty
  std::int64_t rank = 0;
  double alpha = 0;
  bool rank_stabilised = false;
  // Regular expressions over module names, as in PEFT: the first that matches the end of a name decides.
  std::vector<std::pair<std::string, std::int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  // What the adapter changes, where it says so by name and number; whatever else its tensors hold, PEFT leaves out.
  std::vector<std::string> target_modules; // ends of module names: "q_proj"
  std::vector<std::int64_t> layers_to_transform;
};

struct PeftProduct {
  std::string module; // "model.layers.12.self_attn.q_proj"
  StoredTensor a, b;
  std::int64_t rank = 0;
  double scale = 0;
};

class PeftAdapter {
 public:
  // Errors: not_found; incompatible, naming the option or tensor that is not supported; integrity (half a product is
  // missing, ranks or targets that disagree, a damaged file).
  static PeftAdapter open(const std::filesystem::path& folder);
  PeftAdapter(PeftConfig config, SafetensorsFile file);

  const PeftConfig& config() const { return config_; }
  const std::string& name() const { return file_->name(); }
  const std::vector<PeftProduct>& products() const { return products_; } // by module
  // What is no change of a product: "model.embed_tokens.lora_embedding_A", "lm_head.weight" of modules_to_save.
  const std::vector<std::string>& others() const { return others_; }

 private:
  PeftConfig config_;
  std::shared_ptr<const SafetensorsFile> file_;
  std::vector<PeftProduct> products_;
  std::vector<std::string> others_;
};

// Errors: as above.
PeftConfig read_peft_config(const json::value& value, const std::string& where);

} // namespace tenon

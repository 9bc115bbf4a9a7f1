// A Hugging Face model directory: which files it has. Nothing outside the directory is named or opened.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace tenon {

struct HfDirectory {
  std::filesystem::path directory, config;
  std::vector<std::filesystem::path> weights;              // model.safetensors, or the shards of the index
  std::optional<std::filesystem::path> index;              // model.safetensors.index.json, when sharded
  std::vector<std::pair<std::string, std::string>> placed; // of the index: tensor, shard's file name
  std::optional<std::filesystem::path> tokenizer;          // tokenizer.json
};

// Errors: not_found when config.json or the weights are missing; integrity for a bad index, or a shard whose name is
// no plain file name.
HfDirectory scan_hf_directory(const std::filesystem::path& directory);

} // namespace tenon

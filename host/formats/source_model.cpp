#include "host/formats/source_model.hpp"

#include "host/formats/gguf.hpp"
#include "host/formats/source_builder.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

namespace tenon {

void check_config(const ModelConfig& c, const std::string& source) {
  const auto need = [&](bool holds, const std::string& what) {
    if (!holds) throw Error(Code::integrity, source, what);
  };
  // No model we could hold has an extent near these; products of two stay far from overflow.
  const auto extent = [&](std::int64_t number, const char* name, std::int64_t most) {
    need(number >= 1 && number <= most, fmt::format("{}: found {}, need 1 to {}", name, number, most));
  };
  extent(c.hidden_size, "hidden size", 1 << 20);
  extent(c.layers, "layers", 1 << 14);
  extent(c.heads, "attention heads", 1 << 16);
  extent(c.kv_heads, "key-value heads", 1 << 16);
  extent(c.head_dim, "head dimension", 1 << 16);
  extent(c.ffn_size, "feed-forward size", 1 << 24);
  extent(c.vocab_size, "vocabulary", 1 << 26);
  extent(c.context_length, "context length", std::int64_t{1} << 40);
  need(c.heads % c.kv_heads == 0,
       fmt::format("found {} attention heads, need a multiple of the {} key-value heads", c.heads, c.kv_heads));
  need(c.norm_eps >= 0 && c.norm_eps < 1, fmt::format("epsilon of the norms: found {}, need 0 to 1", c.norm_eps));
  if (c.block.rotary) {
    need(c.head_dim % 2 == 0, fmt::format("head dimension: found {}, rotary positions need an even one", c.head_dim));
    need(c.rope_theta > 0 && c.rope_theta < 1e30, fmt::format("rope_theta: found {}, need more than 0", c.rope_theta));
  } else {
    extent(c.context_length, "learned positions", 1 << 26);
  }
  const auto token = [&](std::int64_t id, const char* name) {
    need(id >= 0 && id < c.vocab_size, fmt::format("{}: found {}, the vocabulary has {}", name, id, c.vocab_size));
  };
  if (c.bos_id) token(*c.bos_id, "bos token id");
  if (c.pad_id) token(*c.pad_id, "pad token id");
  for (const std::int64_t id : c.eos_ids) token(id, "eos token id");
}

const StoredTensor* SourceModel::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& SourceModel::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  throw Error(Code::integrity, name_, fmt::format("the tensor {} is missing", name));
}

SourceModel SourceModel::open(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return open_hf(path);
  if (path.extension() == ".safetensors" || path.extension() == ".json") {
    throw Error(Code::usage, path.string(), "is one file of a Hugging Face directory", "give the directory itself");
  }
  return open_gguf(path);
}

} // namespace tenon

#include "host/formats/source_model.hpp"

#include "host/formats/gguf.hpp"
#include "host/formats/source_builder.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>

namespace tenon {
namespace {

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& c) {
  const auto n = [](std::int64_t number) { return static_cast<std::size_t>(number); };
  const std::size_t C = n(c.hidden_size), F = n(c.ffn_size), V = n(c.vocab_size);
  const std::size_t q = n(c.heads * c.head_dim), kv = n(c.kv_heads * c.head_dim);
  std::vector<ExpectedTensor> tensors{{"", -1, "embed", {V, C}}};
  for (std::int64_t i = 0; i < c.layers; ++i) {
    tensors.insert(tensors.end(), {{"", i, "attention_norm", {C}},
                                   {"", i, "attention.q", {q, C}},
                                   {"", i, "attention.k", {kv, C}},
                                   {"", i, "attention.v", {kv, C}},
                                   {"", i, "attention.o", {C, q}},
                                   {"", i, "ffn_norm", {C}},
                                   {"", i, "ffn.gate", {F, C}},
                                   {"", i, "ffn.up", {F, C}},
                                   {"", i, "ffn.down", {C, F}}});
  }
  tensors.push_back({"", -1, "norm", {C}});
  if (!c.tie_embeddings) tensors.push_back({"", -1, "unembed", {V, C}});
  for (ExpectedTensor& t : tensors) {
    t.name = t.layer < 0 ? t.part + ".weight" : fmt::format("blocks.{}.{}.weight", t.layer, t.part);
  }
  return tensors;
}

} // namespace

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
  need(c.head_dim % 2 == 0, fmt::format("head dimension: found {}, rotary positions need an even one", c.head_dim));
  need(c.rms_norm_eps >= 0 && c.rms_norm_eps < 1, fmt::format("rms_norm_eps: found {}, need 0 to 1", c.rms_norm_eps));
  need(c.rope_theta > 0 && c.rope_theta < 1e30, fmt::format("rope_theta: found {}, need more than 0", c.rope_theta));
  const auto token = [&](std::int64_t id, const char* name) {
    need(id >= 0 && id < c.vocab_size, fmt::format("{}: found {}, the vocabulary has {}", name, id, c.vocab_size));
  };
  if (c.bos_id) token(*c.bos_id, "bos token id");
  if (c.pad_id) token(*c.pad_id, "pad token id");
  for (const std::int64_t id : c.eos_ids) token(id, "eos token id");
}

SourceBuilder::SourceBuilder(std::string name, ModelConfig config) {
  check_config(config, name);
  model_.name_ = std::move(name);
  model_.config_ = std::move(config);
}

void SourceBuilder::keep(std::filesystem::path directory, std::vector<std::shared_ptr<const SafetensorsFile>> shards) {
  model_.directory_ = std::move(directory);
  model_.shards_ = std::move(shards);
}

void SourceBuilder::take_one(const ExpectedTensor& expected, const Find& find, Rename rename) {
  const std::string source_name = rename(expected.part, expected.layer);
  const StoredTensor* found = find(source_name);
  if (!found) {
    throw Error(
        Code::integrity, model_.name_,
        fmt::format("the tensor {} is missing; its shape would be [{}]", source_name, fmt::join(expected.shape, ",")));
  }
  if (found->shape != expected.shape) {
    throw Error(Code::integrity, model_.name_,
                fmt::format("the tensor {} has shape [{}], the configuration needs [{}]", source_name,
                            fmt::join(found->shape, ","), fmt::join(expected.shape, ",")));
  }
  taken_[source_name] = true;
  model_.tensors_.push_back(*found);
  model_.tensors_.back().name = expected.name;
}

void SourceBuilder::take(const Find& find, Rename rename, const std::vector<std::string>& source_names) {
  for (const ExpectedTensor& expected : expected_tensors(model_.config_)) take_one(expected, find, rename);
  for (const std::string& name : source_names) {
    if (taken_.contains(name)) continue;
    throw Error(Code::incompatible, model_.name_,
                fmt::format("the tensor {} belongs to no part of a Llama-type model that is supported", name),
                "import a model without it; leaving it out would change what the model computes");
  }
}

void SourceBuilder::reorder_rotary_rows() {
  const auto half = static_cast<std::size_t>(model_.config_.head_dim) / 2;
  for (StoredTensor& tensor : model_.tensors_) {
    if (!tensor.name.ends_with(".attention.q.weight") && !tensor.name.ends_with(".attention.k.weight")) continue;
    const std::size_t rows = tensor.shape[0], row_bytes = tensor.bytes.size() / rows;
    std::vector<std::byte>& target = model_.reordered_.emplace_back(tensor.bytes.size());
    for (std::size_t row = 0; row < rows; ++row) {
      const std::size_t head = row / (2 * half), within = row % (2 * half);
      const std::size_t source = head * 2 * half + within % half * 2 + within / half;
      std::memcpy(target.data() + row * row_bytes, tensor.bytes.data() + source * row_bytes, row_bytes);
    }
    tensor.bytes = target;
  }
}

SourceModel SourceBuilder::build() {
  for (std::size_t i = 0; i < model_.tensors_.size(); ++i) model_.index_.emplace(model_.tensors_[i].name, i);
  return std::move(model_);
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

#include "host/formats/source_builder.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace tenon {
namespace {

// One tensor a model must have: our name without the block's number, and its shape.
struct ExpectedTensor {
  std::string part;   // "embed.weight", "attention.q.weight", ...
  std::int64_t layer; // -1 outside the blocks
  std::vector<std::size_t> shape;

  std::string name() const { return layer < 0 ? part : fmt::format("blocks.{}.{}", layer, part); }
};

class ExpectedTensors {
 public:
  explicit ExpectedTensors(const ModelConfig& config) : c_(config) {
    const std::size_t C = n(c_.hidden_size), V = n(c_.vocab_size);
    add("embed.weight", {V, C});
    if (!c_.block.rotary) add("positions.weight", {n(c_.context_length), C});
    for (layer_ = 0; layer_ < c_.layers; ++layer_) block();
    layer_ = -1;
    norm("norm");
    if (!c_.tie_embeddings) add("unembed.weight", {V, C});
  }

  const std::vector<ExpectedTensor>& all() const { return all_; }

 private:
  static std::size_t n(std::int64_t number) { return static_cast<std::size_t>(number); }

  void add(std::string part, std::vector<std::size_t> shape) {
    all_.push_back({std::move(part), layer_, std::move(shape)});
  }
  void product(const std::string& part, std::size_t rows, std::size_t columns, bool bias) {
    add(part + ".weight", {rows, columns});
    if (bias) add(part + ".bias", {rows});
  }
  void norm(const std::string& part) {
    add(part + ".weight", {n(c_.hidden_size)});
    if (c_.block.norm == nn::NormKind::layer) add(part + ".bias", {n(c_.hidden_size)});
  }

  void block() {
    const std::size_t C = n(c_.hidden_size), F = n(c_.ffn_size);
    const std::size_t q = n(c_.heads * c_.head_dim), kv = n(c_.kv_heads * c_.head_dim);
    const bool everywhere = c_.block.bias == nn::BiasKind::all, qkv = everywhere || c_.block.bias == nn::BiasKind::qkv;
    norm("attention_norm");
    product("attention.q", q, C, qkv);
    product("attention.k", kv, C, qkv);
    product("attention.v", kv, C, qkv);
    if (c_.block.qk_norm) {
      add("attention.q_norm.weight", {n(c_.head_dim)});
      add("attention.k_norm.weight", {n(c_.head_dim)});
    }
    product("attention.o", C, q, everywhere);
    norm("ffn_norm");
    if (c_.block.ffn == nn::FfnKind::swiglu) product("ffn.gate", F, C, everywhere);
    product("ffn.up", F, C, everywhere);
    product("ffn.down", C, F, everywhere);
  }

  const ModelConfig& c_;
  std::int64_t layer_ = -1;
  std::vector<ExpectedTensor> all_;
};

// Rows [first, first + count) of a tensor: rows of a matrix, or numbers of a vector.
StoredTensor rows_of(const StoredTensor& whole, std::size_t first, std::size_t count, std::string name) {
  StoredTensor part = whole;
  const std::size_t row_bytes = whole.bytes.size() / whole.shape[0];
  part.name = std::move(name);
  part.shape[0] = count;
  part.bytes = whole.bytes.subspan(first * row_bytes, count * row_bytes);
  return part;
}

} // namespace

std::string source_name(const StemNames& names, std::string_view part, std::int64_t layer, const char* block) {
  const std::size_t dot = part.rfind('.');
  const std::string stem_name = std::string(names.at(part.substr(0, dot))) + std::string(part.substr(dot));
  return layer < 0 ? stem_name : fmt::format(fmt::runtime(block), layer) + stem_name;
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

void SourceBuilder::transpose(SourceTensors& tensors, std::string_view ending) {
  for (auto& [name, tensor] : tensors) {
    if (!name.ends_with(ending)) continue;
    if (tensor.shape.size() != 2) {
      throw Error(Code::integrity, model_.name_,
                  fmt::format("the tensor {} has shape [{}], need a matrix", name, fmt::join(tensor.shape, ",")));
    }
    if (nn::is_quantised(tensor.type)) {
      throw Error(Code::incompatible, model_.name_,
                  fmt::format("the tensor {} is stored transposed, which {} blocks cannot be turned from", name,
                              nn::block_name(tensor.type)),
                  "import the model as it was before it was quantised");
    }
    const std::size_t in = tensor.shape[0], out = tensor.shape[1], size = nn::block_bytes(tensor.type);
    std::vector<std::byte>& target = model_.rewritten_.emplace_back(tensor.bytes.size());
    for (std::size_t row = 0; row < in; ++row) {
      for (std::size_t column = 0; column < out; ++column) {
        std::memcpy(target.data() + (column * in + row) * size, tensor.bytes.data() + (row * out + column) * size,
                    size);
      }
    }
    tensor.shape = {out, in};
    tensor.bytes = target;
  }
}

void SourceBuilder::split_rows(SourceTensors& tensors, std::string_view fused,
                               const std::array<std::string_view, 3>& parts) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    if (name.find(fused) != name.npos) names.push_back(name);
  }
  for (const std::string& name : names) {
    const StoredTensor whole = tensors.extract(name).mapped();
    const std::size_t rows = whole.shape.empty() ? 0 : whole.shape[0], third = rows / 3;
    const bool whole_blocks = whole.shape.size() != 1 || third % nn::block_elements(whole.type) == 0;
    if (third == 0 || rows % 3 != 0 || !whole_blocks) {
      throw Error(Code::integrity, model_.name_,
                  fmt::format("the tensor {} has shape [{}], need q, k and v one below the other", name,
                              fmt::join(whole.shape, ",")));
    }
    const std::size_t at = name.find(fused);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      std::string part = std::string(name).replace(at, fused.size(), parts[i]);
      StoredTensor tensor = rows_of(whole, i * third, third, part);
      if (!tensors.emplace(part, std::move(tensor)).second) {
        throw Error(Code::integrity, model_.name_, fmt::format("both the tensors {} and {} are there", name, part));
      }
    }
  }
}

void SourceBuilder::take(const SourceTensors& tensors, Rename rename) {
  std::set<std::string> left; // sorted, so that the one refused first is always the same
  for (const auto& [name, tensor] : tensors) left.insert(name);
  const ExpectedTensors all(model_.config_);
  for (const ExpectedTensor& expected : all.all()) {
    const std::string name = rename(expected.part, expected.layer);
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      throw Error(
          Code::integrity, model_.name_,
          fmt::format("the tensor {} is missing; its shape would be [{}]", name, fmt::join(expected.shape, ",")));
    }
    if (found->second.shape != expected.shape) {
      throw Error(Code::integrity, model_.name_,
                  fmt::format("the tensor {} has shape [{}], the configuration needs [{}]", name,
                              fmt::join(found->second.shape, ","), fmt::join(expected.shape, ",")));
    }
    left.erase(name);
    model_.tensors_.push_back(found->second);
    model_.tensors_.back().name = expected.name();
  }
  if (left.empty()) return;
  throw Error(Code::incompatible, model_.name_,
              fmt::format("the tensor {} belongs to no part of a {} model that is supported", *left.begin(),
                          model_.config_.family),
              "import a model without it; leaving it out would change what the model computes");
}

void SourceBuilder::reorder_rotary_rows() {
  const auto half = static_cast<std::size_t>(model_.config_.head_dim) / 2;
  for (StoredTensor& tensor : model_.tensors_) {
    if (!tensor.name.ends_with(".attention.q.weight") && !tensor.name.ends_with(".attention.k.weight")) continue;
    const std::size_t rows = tensor.shape[0], row_bytes = tensor.bytes.size() / rows;
    std::vector<std::byte>& target = model_.rewritten_.emplace_back(tensor.bytes.size());
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

} // namespace tenon

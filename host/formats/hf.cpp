#include "host/formats/hf.hpp"

#include "host/formats/hf_config.hpp"
#include "host/formats/source_builder.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace tenon {
namespace {

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// Shards lie beside their index; a name with a folder in it could lead anywhere.
bool is_plain_name(std::string_view name) {
  return name.ends_with(".safetensors") && name.find('/') == name.npos && name.find('\\') == name.npos &&
         name.find('\0') == name.npos;
}

void read_index(HfDirectory& found) {
  const json::value index = read_json(*found.index);
  const JsonReader map = JsonReader(index, found.index->string()).at("weight_map");
  std::set<std::string> shards;
  for (const auto& member : map.object()) {
    const std::string shard = map.at(member.key()).string();
    if (!is_plain_name(shard)) map.at(member.key()).fail(fmt::format("found \"{}\", need a plain file name", shard));
    found.placed.emplace_back(member.key(), shard);
    shards.insert(shard);
  }
  if (shards.empty()) map.fail("names no shard");
  for (const std::string& shard : shards) found.weights.push_back(found.directory / shard);
}

using Shards = std::vector<std::shared_ptr<const SafetensorsFile>>;

// Buffers that old checkpoints stored beside the weights: they follow from rope_theta, and from being causal.
bool is_buffer(std::string_view tensor, const ModelConfig& config) {
  if (config.family == "gpt2") return tensor.ends_with(".attn.bias") || tensor.ends_with(".attn.masked_bias");
  return tensor.ends_with(".rotary_emb.inv_freq");
}

// The index and the shards must agree about what is where.
void check_places(const HfDirectory& found, const std::unordered_map<std::string, std::string>& shard_of) {
  const auto fail = [&](const std::string& tensor, const std::string& said, const std::string& is) {
    throw Error(Code::integrity, found.index->string(),
                fmt::format("the tensor {} is in {}, the index says {}", tensor, is, said));
  };
  std::set<std::string_view> placed;
  for (const auto& [tensor, shard] : found.placed) {
    placed.insert(tensor);
    const auto place = shard_of.find(tensor);
    if (place == shard_of.end()) fail(tensor, shard, "no shard");
    if (place->second != shard) fail(tensor, shard, place->second);
  }
  for (const auto& [tensor, shard] : shard_of) {
    if (!placed.contains(tensor)) fail(tensor, "nothing", shard);
  }
}

// Every tensor of every shard, once.
SourceTensors collect(const HfDirectory& found, const Shards& shards, const ModelConfig& config) {
  SourceTensors tensors;
  std::unordered_map<std::string, std::string> shard_of;
  for (const auto& shard : shards) {
    for (const TensorView& view : shard->tensors()) {
      if (!shard_of.emplace(view.name, std::filesystem::path(shard->name()).filename().string()).second) {
        throw Error(Code::integrity, shard->name(), fmt::format("the tensor {} is in another shard too", view.name));
      }
      if (!is_buffer(view.name, config)) tensors.emplace(view.name, stored_tensor(*shard, view.name));
    }
  }
  if (found.index) check_places(found, shard_of);
  return tensors;
}

// GPT-2's tensors stand under "transformer." or bare; its products are Conv1D layers, (in, out), with q, k and v in
// one.
void rewrite_gpt2(SourceBuilder& builder, SourceTensors& tensors) {
  constexpr std::string_view prefix = "transformer.";
  std::vector<std::string> prefixed;
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with(prefix)) prefixed.push_back(name);
  }
  for (const std::string& name : prefixed) {
    const std::string bare = name.substr(prefix.size());
    if (!tensors.emplace(bare, tensors.at(name)).second) {
      throw Error(Code::integrity, tensors.at(name).name, fmt::format("the tensor {} is there as {} too", name, bare));
    }
    tensors.erase(name);
  }
  for (const char* product : {".c_attn.weight", ".c_proj.weight", ".c_fc.weight"}) builder.transpose(tensors, product);
  builder.split_rows(tensors, ".attn.c_attn.", {".attn.q.", ".attn.k.", ".attn.v."});
}

std::string hf_name(const std::string& part, std::int64_t layer) {
  static const StemNames names{{"embed", "model.embed_tokens"},
                               {"norm", "model.norm"},
                               {"unembed", "lm_head"},
                               {"attention_norm", "input_layernorm"},
                               {"attention.q", "self_attn.q_proj"},
                               {"attention.k", "self_attn.k_proj"},
                               {"attention.v", "self_attn.v_proj"},
                               {"attention.q_norm", "self_attn.q_norm"},
                               {"attention.k_norm", "self_attn.k_norm"},
                               {"attention.o", "self_attn.o_proj"},
                               {"ffn_norm", "post_attention_layernorm"},
                               {"ffn.gate", "mlp.gate_proj"},
                               {"ffn.up", "mlp.up_proj"},
                               {"ffn.down", "mlp.down_proj"}};
  return source_name(names, part, layer, "model.layers.{}.");
}

std::string gpt2_name(const std::string& part, std::int64_t layer) {
  static const StemNames names{{"embed", "wte"},          {"positions", "wpe"},       {"norm", "ln_f"},
                               {"unembed", "lm_head"},    {"attention_norm", "ln_1"}, {"attention.q", "attn.q"},
                               {"attention.k", "attn.k"}, {"attention.v", "attn.v"},  {"attention.o", "attn.c_proj"},
                               {"ffn_norm", "ln_2"},      {"ffn.up", "mlp.c_fc"},     {"ffn.down", "mlp.c_proj"}};
  return source_name(names, part, layer, "h.{}.");
}

// A tied model may store the unembedding a second time: dropped when it is the same, refused when it is not.
void drop_tied_copy(const ModelConfig& config, SourceTensors& tensors, SourceBuilder::Rename rename,
                    const std::string& source) {
  const auto unembed = tensors.find(rename("unembed.weight", -1)), embed = tensors.find(rename("embed.weight", -1));
  if (!config.tie_embeddings || unembed == tensors.end() || embed == tensors.end()) return;
  const StoredTensor &a = unembed->second, &b = embed->second;
  if (a.type != b.type || a.shape != b.shape || !std::ranges::equal(a.bytes, b.bytes)) {
    throw Error(Code::integrity, source,
                fmt::format("tie_word_embeddings is true, but {} differs from {}", unembed->first, embed->first),
                "set tie_word_embeddings to what the model was trained with");
  }
  tensors.erase(unembed);
}

} // namespace

HfDirectory scan_hf_directory(const std::filesystem::path& directory) {
  HfDirectory found{directory, directory / "config.json", {}, {}, {}, {}};
  if (!is_there(found.config)) {
    throw Error(Code::not_found, directory.string(), "has no config.json",
                "give the directory of a Hugging Face model");
  }
  if (is_there(directory / "model.safetensors")) {
    found.weights.push_back(directory / "model.safetensors");
  } else if (is_there(directory / "model.safetensors.index.json")) {
    found.index = directory / "model.safetensors.index.json";
    read_index(found);
  } else {
    throw Error(Code::not_found, directory.string(), "has neither model.safetensors nor model.safetensors.index.json",
                "save the model in safetensors form");
  }
  if (is_there(directory / "tokenizer.json")) found.tokenizer = directory / "tokenizer.json";
  return found;
}

SourceModel SourceModel::open_hf(const std::filesystem::path& directory) {
  const HfDirectory found = scan_hf_directory(directory);
  const ModelConfig config = read_hf_config(read_json(found.config), found.config.string());
  Shards shards;
  for (const auto& path : found.weights) shards.push_back(std::make_shared<const SafetensorsFile>(path));
  SourceTensors tensors = collect(found, shards, config);

  const bool gpt2 = config.family == "gpt2";
  const SourceBuilder::Rename rename = gpt2 ? gpt2_name : hf_name;
  SourceBuilder builder(directory.string(), config);
  if (gpt2) rewrite_gpt2(builder, tensors);
  drop_tied_copy(config, tensors, rename, found.config.string());
  builder.keep(directory, std::move(shards));
  builder.take(tensors, rename);
  return builder.build();
}

} // namespace tenon

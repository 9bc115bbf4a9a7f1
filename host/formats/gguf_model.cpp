#include "host/formats/gguf.hpp"
#include "host/formats/source_builder.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <array>
#include <set>

namespace tenon {
namespace {

// What general.architecture means. Mistral's models are written as "llama".
struct Family {
  std::string_view architecture;
  nn::BlockKind block;
  bool rotates_neighbours; // rows of q and k stand so that neighbours rotate together
};
constexpr Family families[] = {
    {"llama", {}, true},
    {"qwen2", {.bias = nn::BiasKind::qkv}, false},
    {"qwen3", {.qk_norm = true}, false},
    {"gpt2",
     {.norm = nn::NormKind::layer, .ffn = nn::FfnKind::gelu, .bias = nn::BiasKind::all, .rotary = false},
     false}};

// The metadata of one architecture, whose keys are led by its name.
struct Metadata {
  const GgufFile& file;
  const Family& family;

  std::string key(std::string_view name) const { return fmt::format("{}.{}", family.architecture, name); }
  bool has(std::string_view name) const { return file.has(key(name)); }
  std::int64_t integer(std::string_view name) const { return file.integer(key(name)); }
  std::int64_t integer(std::string_view name, std::int64_t other) const { return file.integer(key(name), other); }
  double number(std::string_view name) const { return file.number(key(name)); }
  double number(std::string_view name, double other) const { return file.number(key(name), other); }
};

// Keys that ModelConfig is made from, or that are checked on their own below.
const std::set<std::string_view> common_keys{
    "block_count", "context_length",       "embedding_length",       "feed_forward_length",    "attention.head_count",
    "vocab_size",  "attention.key_length", "attention.value_length", "attention.head_count_kv"};
const std::set<std::string_view> rotary_keys{"attention.layer_norm_rms_epsilon", "rope.freq_base",
                                             "rope.dimension_count", "attention.sliding_window"};
const std::set<std::string_view> learned_keys{"attention.layer_norm_epsilon"};
// Keys that say nothing the mathematics depends on once rope.scaling.type is "none".
const std::set<std::string_view> harmless_keys{"rope.scaling.original_context_length", "rope.scaling.finetuned"};

// Keys that change the mathematics, and the value that leaves it as it is.
struct NeutralNumber {
  std::string_view key;
  double neutral;
};
constexpr std::array<NeutralNumber, 9> neutral_numbers{{{"expert_count", 0},
                                                        {"expert_used_count", 0},
                                                        {"attention.max_alibi_bias", 0},
                                                        {"attention.clamp_kqv", 0},
                                                        {"rope.scaling.factor", 1},
                                                        {"rope.scaling.attn_factor", 1},
                                                        {"rope.scale_linear", 1},
                                                        {"logit_scale", 1},
                                                        {"residual_scale", 1}}};
struct NeutralText {
  std::string_view key, neutral;
};
constexpr std::array<NeutralText, 2> neutral_texts{
    {{"rope.scaling.type", "none"}, {"tensor_data_layout", "Meta AI original pth"}}};
struct NeutralBoolean {
  std::string_view key;
  bool neutral;
};
constexpr std::array<NeutralBoolean, 2> neutral_booleans{
    {{"use_parallel_residual", false}, {"attention.causal", true}}};

std::string value_text(const GgufFile& file, const GgufValue& value) {
  if (value.type == GgufType::array) return gguf_type_name(value);
  if (value.type == GgufType::string) return fmt::format("\"{}\"", file.string(value.key).substr(0, 60));
  if (value.type == GgufType::boolean) return file.boolean(value.key) ? "true" : "false";
  return fmt::format("{}", file.number(value.key));
}

bool is_neutral(const GgufFile& file, const GgufValue& value, std::string_view key, const Family& family) {
  for (const NeutralNumber& rule : neutral_numbers) {
    if (key == rule.key) return file.number(value.key) == rule.neutral;
  }
  for (const NeutralText& rule : neutral_texts) {
    if (key == rule.key) return file.string(value.key) == rule.neutral;
  }
  for (const NeutralBoolean& rule : neutral_booleans) {
    if (key == rule.key) return file.boolean(value.key) == rule.neutral;
  }
  const auto& own = family.block.rotary ? rotary_keys : learned_keys;
  return common_keys.contains(key) || own.contains(key) || harmless_keys.contains(key);
}

[[noreturn]] void refuse(const GgufFile& file, std::string_view key, const std::string& found,
                         const std::string& need) {
  throw Error(Code::incompatible, file.name(), fmt::format("{}: found {}, {}", key, found, need),
              "import a model of this family without this feature");
}

const Family& read_family(const GgufFile& file) {
  const std::string_view architecture = file.string("general.architecture");
  std::string known;
  for (const Family& family : families) {
    if (architecture == family.architecture) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.architecture);
  }
  refuse(file, "general.architecture", fmt::format("\"{}\"", architecture.substr(0, 60)), "need one of: " + known);
}

void check_keys(const GgufFile& file, const Family& family) {
  const std::string_view type = file.string("general.type", "model");
  if (type != "model") refuse(file, "general.type", fmt::format("\"{}\"", type), "need \"model\"");
  const std::int64_t parts = file.integer("split.count", 1);
  if (parts > 1) refuse(file, "split.count", fmt::format("{}", parts), "need one file; merge the parts first");
  const std::string prefix = fmt::format("{}.", family.architecture);
  for (const GgufValue& value : file.values()) {
    if (!value.key.starts_with(prefix)) continue;
    if (!is_neutral(file, value, value.key.substr(prefix.size()), family)) {
      refuse(file, value.key, value_text(file, value), "which is not supported and may change what the model computes");
    }
  }
}

// head_dim is written down in up to three places; they must agree.
std::int64_t head_dim(const Metadata& data, const ModelConfig& c) {
  const std::int64_t derived = c.heads > 0 ? c.hidden_size / c.heads : 0;
  const std::int64_t key = data.integer("attention.key_length", data.integer("rope.dimension_count", derived));
  const std::int64_t value = data.integer("attention.value_length", key);
  const std::int64_t rotated = data.integer("rope.dimension_count", key);
  const auto agree = [&](std::string_view name, std::int64_t found) {
    if (found != key) refuse(data.file, data.key(name), fmt::format("{}", found), fmt::format("need {}", key));
  };
  agree("attention.value_length", value);
  agree("rope.dimension_count", rotated);
  return key;
}

// A position sees the window's positions before it, itself included: a window of the whole context hides nothing.
void check_window(const Metadata& data, const ModelConfig& c) {
  const std::int64_t window = data.integer("attention.sliding_window", 0);
  if (window == 0 || window >= c.context_length) return;
  refuse(data.file, data.key("attention.sliding_window"), fmt::format("{}", window),
         fmt::format("need none, or one that holds the whole context of {}", c.context_length));
}

ModelConfig read_config(const GgufFile& file, const Family& family) {
  const Metadata data{file, family};
  ModelConfig c;
  c.family = family.architecture;
  c.block = family.block;
  c.hidden_size = data.integer("embedding_length");
  c.layers = data.integer("block_count");
  c.heads = data.integer("attention.head_count");
  c.kv_heads = data.integer("attention.head_count_kv", c.heads);
  c.head_dim = head_dim(data, c);
  c.ffn_size = data.integer("feed_forward_length");
  c.context_length = data.integer("context_length");
  c.norm_eps = data.number(c.block.norm == nn::NormKind::rms ? "attention.layer_norm_rms_epsilon"
                                                             : "attention.layer_norm_epsilon");
  if (c.block.rotary) {
    c.rope_theta = data.number("rope.freq_base", 10000);
    check_window(data, c);
  }
  c.tie_embeddings = file.find_tensor("output.weight") == nullptr;
  const GgufTensor* embed = file.find_tensor("token_embd.weight");
  c.vocab_size = data.integer("vocab_size", embed ? static_cast<std::int64_t>(embed->shape[0]) : 0);
  if (file.has("tokenizer.ggml.bos_token_id")) c.bos_id = file.integer("tokenizer.ggml.bos_token_id");
  if (file.has("tokenizer.ggml.padding_token_id")) c.pad_id = file.integer("tokenizer.ggml.padding_token_id");
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    if (file.has(key)) c.eos_ids.push_back(file.integer(key));
  }
  return c;
}

std::string gguf_name(const std::string& part, std::int64_t layer) {
  static const StemNames names{{"embed", "token_embd"},
                               {"positions", "position_embd"},
                               {"norm", "output_norm"},
                               {"unembed", "output"},
                               {"attention_norm", "attn_norm"},
                               {"attention.q", "attn_q"},
                               {"attention.k", "attn_k"},
                               {"attention.v", "attn_v"},
                               {"attention.q_norm", "attn_q_norm"},
                               {"attention.k_norm", "attn_k_norm"},
                               {"attention.o", "attn_output"},
                               {"ffn_norm", "ffn_norm"},
                               {"ffn.gate", "ffn_gate"},
                               {"ffn.up", "ffn_up"},
                               {"ffn.down", "ffn_down"}};
  return source_name(names, part, layer, "blk.{}.");
}

} // namespace

SourceModel SourceModel::open_gguf(const std::filesystem::path& path) {
  return open_gguf(std::make_shared<const GgufFile>(path));
}

SourceModel SourceModel::open_gguf(std::shared_ptr<const GgufFile> file) {
  const Family& family = read_family(*file);
  check_keys(*file, family);
  SourceBuilder builder(file->name(), read_config(*file, family));
  SourceTensors tensors;
  for (const GgufTensor& tensor : file->tensors()) tensors.emplace(tensor.name, tensor);
  if (family.architecture == "gpt2") builder.split_rows(tensors, ".attn_qkv.", {".attn_q.", ".attn_k.", ".attn_v."});
  builder.take(tensors, gguf_name);
  if (family.rotates_neighbours) builder.reorder_rotary_rows();
  builder.keep(std::move(file));
  return builder.build();
}

} // namespace tenon

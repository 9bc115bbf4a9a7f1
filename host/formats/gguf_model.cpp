#include "host/formats/gguf.hpp"
#include "host/formats/source_builder.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <array>
#include <set>

namespace tenon {
namespace {

constexpr std::string_view prefix = "llama.";

// Keys that ModelConfig is made from.
const std::set<std::string_view> config_keys{
    "block_count",          "context_length",         "embedding_length",
    "feed_forward_length",  "attention.head_count",   "attention.head_count_kv",
    "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "rope.freq_base",       "rope.dimension_count",   "vocab_size"};
// Keys that say nothing the mathematics depends on once rope.scaling.type is "none".
const std::set<std::string_view> harmless_keys{"rope.scaling.original_context_length", "rope.scaling.finetuned"};

// Keys that change the mathematics, and the value that leaves it as it is.
struct NeutralNumber {
  std::string_view key;
  double neutral;
};
constexpr std::array<NeutralNumber, 10> neutral_numbers{{{"expert_count", 0},
                                                         {"expert_used_count", 0},
                                                         {"attention.sliding_window", 0},
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

bool is_neutral(const GgufFile& file, const GgufValue& value, std::string_view key) {
  for (const NeutralNumber& rule : neutral_numbers) {
    if (key == rule.key) return file.number(value.key) == rule.neutral;
  }
  for (const NeutralText& rule : neutral_texts) {
    if (key == rule.key) return file.string(value.key) == rule.neutral;
  }
  for (const NeutralBoolean& rule : neutral_booleans) {
    if (key == rule.key) return file.boolean(value.key) == rule.neutral;
  }
  return config_keys.contains(key) || harmless_keys.contains(key);
}

[[noreturn]] void refuse(const GgufFile& file, std::string_view key, const std::string& found,
                         const std::string& need) {
  throw Error(Code::incompatible, file.name(), fmt::format("{}: found {}, {}", key, found, need),
              "import a Llama-type model without this feature");
}

void check_keys(const GgufFile& file) {
  const std::string_view architecture = file.string("general.architecture");
  if (architecture != "llama") {
    refuse(file, "general.architecture", fmt::format("\"{}\"", architecture), "need \"llama\"");
  }
  const std::string_view type = file.string("general.type", "model");
  if (type != "model") refuse(file, "general.type", fmt::format("\"{}\"", type), "need \"model\"");
  const std::int64_t parts = file.integer("split.count", 1);
  if (parts > 1) refuse(file, "split.count", fmt::format("{}", parts), "need one file; merge the parts first");
  for (const GgufValue& value : file.values()) {
    if (!value.key.starts_with(prefix)) continue;
    if (!is_neutral(file, value, value.key.substr(prefix.size()))) {
      refuse(file, value.key, value_text(file, value), "which is not supported and may change what the model computes");
    }
  }
}

// head_dim is written down in up to three places; they must agree.
std::int64_t head_dim(const GgufFile& file, const ModelConfig& c) {
  const std::int64_t derived = c.heads > 0 ? c.hidden_size / c.heads : 0;
  const std::int64_t key =
      file.integer("llama.attention.key_length", file.integer("llama.rope.dimension_count", derived));
  const std::int64_t value = file.integer("llama.attention.value_length", key);
  const std::int64_t rotated = file.integer("llama.rope.dimension_count", key);
  if (value != key) refuse(file, "llama.attention.value_length", fmt::format("{}", value), fmt::format("need {}", key));
  if (rotated != key)
    refuse(file, "llama.rope.dimension_count", fmt::format("{}", rotated), fmt::format("need {}", key));
  return key;
}

ModelConfig read_config(const GgufFile& file) {
  ModelConfig c;
  c.hidden_size = file.integer("llama.embedding_length");
  c.layers = file.integer("llama.block_count");
  c.heads = file.integer("llama.attention.head_count");
  c.kv_heads = file.integer("llama.attention.head_count_kv", c.heads);
  c.head_dim = head_dim(file, c);
  c.ffn_size = file.integer("llama.feed_forward_length");
  c.context_length = file.integer("llama.context_length");
  c.rms_norm_eps = file.number("llama.attention.layer_norm_rms_epsilon");
  c.rope_theta = file.number("llama.rope.freq_base", 10000);
  c.tie_embeddings = file.find_tensor("output.weight") == nullptr;
  const GgufTensor* embed = file.find_tensor("token_embd.weight");
  c.vocab_size = file.integer("llama.vocab_size", embed ? static_cast<std::int64_t>(embed->shape[0]) : 0);
  if (file.has("tokenizer.ggml.bos_token_id")) c.bos_id = file.integer("tokenizer.ggml.bos_token_id");
  if (file.has("tokenizer.ggml.padding_token_id")) c.pad_id = file.integer("tokenizer.ggml.padding_token_id");
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    if (file.has(key)) c.eos_ids.push_back(file.integer(key));
  }
  return c;
}

std::string gguf_name(const std::string& part, std::int64_t layer) {
  static const std::unordered_map<std::string, const char*> names{
      {"embed", "token_embd"},   {"norm", "output_norm"},   {"unembed", "output"},     {"attention_norm", "attn_norm"},
      {"attention.q", "attn_q"}, {"attention.k", "attn_k"}, {"attention.v", "attn_v"}, {"attention.o", "attn_output"},
      {"ffn_norm", "ffn_norm"},  {"ffn.gate", "ffn_gate"},  {"ffn.up", "ffn_up"},      {"ffn.down", "ffn_down"}};
  const char* name = names.at(part);
  return layer < 0 ? fmt::format("{}.weight", name) : fmt::format("blk.{}.{}.weight", layer, name);
}

} // namespace

SourceModel SourceModel::open_gguf(const std::filesystem::path& path) {
  return open_gguf(std::make_shared<const GgufFile>(path));
}

SourceModel SourceModel::open_gguf(std::shared_ptr<const GgufFile> file) {
  check_keys(*file);
  SourceBuilder builder(file->name(), read_config(*file));
  std::vector<std::string> names;
  for (const GgufTensor& tensor : file->tensors()) names.push_back(tensor.name);
  builder.take([&](const std::string& name) { return file->find_tensor(name); }, gguf_name, names);
  builder.reorder_rotary_rows();
  builder.keep(std::move(file));
  return builder.build();
}

} // namespace tenon

#include "host/formats/hf_config.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <map>
#include <set>
#include <vector>

namespace tenon {
namespace {

// What a model_type means, with transformers' defaults for tokens that its config.json does not say.
struct Family {
  std::string_view type, architecture;
  nn::BlockKind block;
  std::optional<std::int64_t> bos, eos;
};
constexpr Family families[] = {
    {"llama", "LlamaForCausalLM", {}, 1, 2},
    {"mistral", "MistralForCausalLM", {}, 1, 2},
    {"qwen2", "Qwen2ForCausalLM", {.bias = nn::BiasKind::qkv}, {}, {}},
    {"qwen3", "Qwen3ForCausalLM", {.qk_norm = true}, {}, {}},
    {"gpt2",
     "GPT2LMHeadModel",
     {.norm = nn::NormKind::layer, .ffn = nn::FfnKind::gelu, .bias = nn::BiasKind::all, .rotary = false},
     50256,
     50256}};

// Keys that ModelConfig is made from, or that are checked on their own below.
using Keys = std::set<std::string_view>;
const Keys common_keys{"model_type",   "architectures", "vocab_size",  "tie_word_embeddings",
                       "bos_token_id", "eos_token_id",  "pad_token_id"};
const Keys rotary_keys{"hidden_size",         "intermediate_size", "num_hidden_layers",
                       "num_attention_heads", "head_dim",          "num_key_value_heads",
                       "rms_norm_eps",        "rope_theta",        "max_position_embeddings",
                       "rope_parameters",     "rope_scaling",      "layer_types",
                       "sliding_window",      "hidden_act",        "use_sliding_window",
                       "max_window_layers"};
const Keys gpt2_keys{
    "n_embd", "n_inner", "n_layer", "n_head", "n_positions", "layer_norm_epsilon", "activation_function"};

// Keys that change what the model computes, and the values (as JSON) that mean what we compute. Null counts as unsaid.
const std::map<std::string_view, std::vector<std::string_view>> neutral_values{
    {"attention_bias", {"false"}},
    {"mlp_bias", {"false"}},
    {"rope_interleaved", {"false"}},
    {"partial_rotary_factor", {"1", "1.0"}},
    {"is_encoder_decoder", {"false"}},
    {"add_cross_attention", {"false"}},
    {"tie_encoder_decoder", {"false"}},
    {"pruned_heads", {"{}"}},
    {"quantization_config", {}},
    {"auto_map", {}},
    {"attn_logit_softcapping", {}},
    {"final_logit_softcapping", {}},
    {"logit_scale", {"1", "1.0"}},
    {"logits_scaling", {"1", "1.0"}},
    {"embedding_multiplier", {"1", "1.0"}},
    {"residual_multiplier", {"1", "1.0"}},
    {"use_qk_norm", {"false"}},
    {"scale_attn_weights", {"true"}},
    {"scale_attn_by_inverse_layer_idx", {"false"}},
    {"reorder_and_upcast_attn", {"false"}},
    {"num_local_experts", {"0"}},
    {"num_experts", {"0"}},
    {"num_experts_per_tok", {"0"}}};

// Keys about training, generation settings, book-keeping and speed: the logits do not depend on them.
const std::set<std::string_view> harmless_keys{"_name_or_path",
                                               "name_or_path",
                                               "transformers_version",
                                               "transformers.js_config",
                                               "torch_dtype",
                                               "dtype",
                                               "use_cache",
                                               "initializer_range",
                                               "attention_dropout",
                                               "hidden_dropout",
                                               "resid_pdrop",
                                               "embd_pdrop",
                                               "attn_pdrop",
                                               "n_ctx", // of old GPT-2 files: n_positions again
                                               "summary_type",
                                               "summary_use_proj",
                                               "summary_activation",
                                               "summary_proj_to_labels",
                                               "summary_first_dropout",
                                               "pretraining_tp",
                                               "is_llama_config",
                                               "is_decoder",
                                               "cross_attention_hidden_size",
                                               "chunk_size_feed_forward",
                                               "attn_implementation",
                                               "_attn_implementation",
                                               "_attn_implementation_autoset",
                                               "_flash_attn_2_enabled",
                                               "output_attentions",
                                               "output_hidden_states",
                                               "output_scores",
                                               "return_dict",
                                               "return_dict_in_generate",
                                               "return_unused_kwargs",
                                               "torchscript",
                                               "tf_legacy_loss",
                                               "use_bfloat16",
                                               "gradient_checkpointing",
                                               "task_specific_params",
                                               "problem_type",
                                               "id2label",
                                               "label2id",
                                               "num_labels",
                                               "finetuning_task",
                                               "tokenizer_class",
                                               "prefix",
                                               "sep_token_id",
                                               "unk_token_id",
                                               "cls_token_id",
                                               "mask_token_id",
                                               "decoder_start_token_id",
                                               "forced_bos_token_id",
                                               "forced_eos_token_id",
                                               "max_length",
                                               "min_length",
                                               "max_new_tokens",
                                               "do_sample",
                                               "early_stopping",
                                               "num_beams",
                                               "num_beam_groups",
                                               "diversity_penalty",
                                               "temperature",
                                               "top_k",
                                               "top_p",
                                               "typical_p",
                                               "repetition_penalty",
                                               "length_penalty",
                                               "no_repeat_ngram_size",
                                               "encoder_no_repeat_ngram_size",
                                               "bad_words_ids",
                                               "num_return_sequences",
                                               "remove_invalid_values",
                                               "exponential_decay_length_penalty",
                                               "suppress_tokens",
                                               "begin_suppress_tokens",
                                               "max_sequence_length",
                                               "unsloth_version",
                                               "unsloth_fixed",
                                               "model_max_length"};

[[noreturn]] void refuse(const std::string& where, std::string_view key, const json::value& value,
                         const std::string& why) {
  std::string found = canonical_json(value);
  if (found.size() > 120) found = found.substr(0, 117) + "...";
  throw Error(Code::incompatible, where, fmt::format("{}: found {}, {}", key, found, why),
              "import a model of this family without this feature");
}

bool said(const JsonReader& config, std::string_view key) {
  return config.has(key) && !config.at(key).value().is_null();
}

void check_keys(const JsonReader& config, const std::string& where, const Family& family) {
  const Keys& own = family.block.rotary ? rotary_keys : gpt2_keys;
  for (const auto& [name, value] : config.object()) {
    const std::string_view key = name;
    if (value.is_null() || common_keys.contains(key) || own.contains(key) || harmless_keys.contains(key)) continue;
    const auto rule = neutral_values.find(key);
    if (rule == neutral_values.end()) {
      refuse(where, key, value, "a key that is not known here and may change what the model computes");
    }
    const std::string text = canonical_json(value);
    bool neutral = false;
    for (const std::string_view allowed : rule->second) neutral = neutral || text == allowed;
    if (!neutral) refuse(where, key, value, "which is not supported");
  }
}

const Family& read_family(const JsonReader& config, const std::string& where) {
  const std::string type = config.at("model_type").string();
  std::string known;
  for (const Family& family : families) {
    known += (known.empty() ? "" : ", ") + std::string(family.type);
    if (type != family.type) continue;
    if (!said(config, "architectures")) return family;
    const JsonReader names = config.at("architectures");
    if (names.array().size() != 1 || names.at(std::size_t{0}).string() != family.architecture) {
      refuse(where, "architectures", names.value(), fmt::format("need [\"{}\"]", family.architecture));
    }
    return family;
  }
  refuse(where, "model_type", config.at("model_type").value(), "need one of: " + known);
}

// The activation of the feed-forward, by transformers' names.
void check_activation(const JsonReader& config, const std::string& where, std::string_view key, const Keys& same) {
  if (said(config, key) && !same.contains(config.at(key).string())) {
    refuse(where, key, config.at(key).value(), fmt::format("need {}", *same.begin()));
  }
}

// A position sees the window's positions before it, itself included: a window of the whole context hides nothing.
void check_window(const JsonReader& config, const std::string& where, const ModelConfig& c) {
  if (said(config, "layer_types")) {
    const JsonReader types = config.at("layer_types");
    for (std::size_t i = 0; i < types.array().size(); ++i) {
      if (types.at(i).string() != "full_attention")
        refuse(where, "layer_types", types.value(), "need full_attention only");
    }
  }
  if (c.family == "qwen2" || c.family == "qwen3") { // which have a window written down, but switched off
    if (!said(config, "use_sliding_window") || !config.at("use_sliding_window").boolean()) return;
    if (said(config, "max_window_layers") && config.at("max_window_layers").integer() >= c.layers) return;
  } else if (said(config, "use_sliding_window") && config.at("use_sliding_window").boolean()) {
    refuse(where, "use_sliding_window", config.at("use_sliding_window").value(), "which is not supported");
  }
  constexpr std::int64_t mistral_default = 4096; // where the key is absent; null says that there is none
  const bool absent = !config.has("sliding_window");
  if (!said(config, "sliding_window") && !(c.family == "mistral" && absent)) return;
  const std::int64_t window = absent ? mistral_default : config.at("sliding_window").integer();
  if (window >= c.context_length) return;
  refuse(where, "sliding_window", absent ? json::value(window) : config.at("sliding_window").value(),
         fmt::format("need none, or one that holds the whole context of {}{}", c.context_length,
                     absent ? " (absent, it is transformers' default)" : ""));
}

// Rotary positions are written as rope_theta, or inside rope_parameters (newer) or rope_scaling (older).
double read_rope_theta(const JsonReader& config, const std::string& where) {
  std::optional<double> theta;
  const auto say = [&](const JsonReader& value) {
    const double said_theta = value.number();
    if (theta && *theta != said_theta) value.fail(fmt::format("found {}, another place says {}", said_theta, *theta));
    theta = said_theta;
  };
  if (said(config, "rope_theta")) say(config.at("rope_theta"));
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (!said(config, key)) continue;
    const JsonReader rope = config.at(key);
    for (const auto& [name, value] : rope.object()) {
      const bool type = name == "rope_type" || name == "type";
      const bool whole = name == "partial_rotary_factor" && value.is_number() && value.to_number<double>() == 1;
      if (name == "rope_theta" && !value.is_null())
        say(rope.at(name));
      else if (!value.is_null() && !whole && !(type && value == json::value("default"))) {
        refuse(where, key, rope.value(), "only unscaled rotary positions are supported");
      }
    }
  }
  return theta.value_or(10000.0); // transformers' default
}

std::vector<std::int64_t> read_eos(const JsonReader& config, const Family& family) {
  if (!config.has("eos_token_id"))
    return family.eos ? std::vector<std::int64_t>{*family.eos} : std::vector<std::int64_t>{};
  const JsonReader eos = config.at("eos_token_id");
  if (eos.value().is_null()) return {};
  if (!eos.value().is_array()) return {eos.integer()};
  std::vector<std::int64_t> ids;
  for (std::size_t i = 0; i < eos.array().size(); ++i) ids.push_back(eos.at(i).integer());
  return ids;
}

std::int64_t integer(const JsonReader& config, std::string_view key, std::int64_t fallback) {
  return said(config, key) ? config.at(key).integer() : fallback;
}
double number(const JsonReader& config, std::string_view key, double fallback) {
  return said(config, key) ? config.at(key).number() : fallback;
}

std::int64_t equal_share(const JsonReader& config, std::int64_t width, std::int64_t heads, const char* names) {
  if (heads < 1 || width % heads != 0)
    config.fail(fmt::format("{}: found {} and {}, need a multiple", names, width, heads));
  return width / heads;
}

// Llama, Mistral, Qwen2, Qwen3. Defaults are transformers'; where a family's default is the size of one of its models,
// the field has to be said.
void read_rotary(const JsonReader& config, const std::string& where, ModelConfig& c) {
  const bool llama = c.family == "llama";
  check_activation(config, where, "hidden_act", {"silu", "swish"});
  c.hidden_size = config.at("hidden_size").integer();
  c.layers = config.at("num_hidden_layers").integer();
  c.heads = config.at("num_attention_heads").integer();
  if (!llama) config.at("num_key_value_heads"); // null says: as many as heads
  c.kv_heads = integer(config, "num_key_value_heads", c.heads);
  if (c.family == "qwen3" || said(config, "head_dim"))
    c.head_dim = config.at("head_dim").integer();
  else
    c.head_dim = equal_share(config, c.hidden_size, c.heads, "hidden_size and num_attention_heads");
  c.ffn_size = config.at("intermediate_size").integer();
  c.context_length =
      llama ? integer(config, "max_position_embeddings", 2048) : config.at("max_position_embeddings").integer();
  c.norm_eps = number(config, "rms_norm_eps", 1e-6);
  c.rope_theta = read_rope_theta(config, where);
  c.tie_embeddings = said(config, "tie_word_embeddings") && config.at("tie_word_embeddings").boolean();
  check_window(config, where, c);
}

void read_gpt2(const JsonReader& config, const std::string& where, ModelConfig& c) {
  check_activation(config, where, "activation_function", {"gelu_new", "gelu_pytorch_tanh"});
  c.hidden_size = config.at("n_embd").integer();
  c.layers = config.at("n_layer").integer();
  c.heads = c.kv_heads = config.at("n_head").integer();
  c.head_dim = equal_share(config, c.hidden_size, c.heads, "n_embd and n_head");
  if (!said(config, "n_inner") && (c.hidden_size < 1 || c.hidden_size > 1 << 20))
    config.at("n_embd").fail("need 1 to 1048576");
  c.ffn_size = said(config, "n_inner") ? config.at("n_inner").integer() : 4 * c.hidden_size;
  c.context_length = config.at("n_positions").integer();
  c.norm_eps = number(config, "layer_norm_epsilon", 1e-5);
  c.tie_embeddings = !said(config, "tie_word_embeddings") || config.at("tie_word_embeddings").boolean();
}

} // namespace

ModelConfig read_hf_config(const json::value& value, const std::string& where) {
  const JsonReader config(value, where);
  const Family& family = read_family(config, where);
  check_keys(config, where, family);
  ModelConfig c;
  c.family = family.type;
  c.block = family.block;
  family.block.rotary ? read_rotary(config, where, c) : read_gpt2(config, where, c);
  c.vocab_size = config.at("vocab_size").integer();
  c.eos_ids = read_eos(config, family);
  if (!config.has("bos_token_id"))
    c.bos_id = family.bos;
  else if (said(config, "bos_token_id"))
    c.bos_id = config.at("bos_token_id").integer();
  // Some checkpoints say -1 for "none".
  if (integer(config, "pad_token_id", -1) != -1) c.pad_id = config.at("pad_token_id").integer();
  return c;
}

} // namespace tenon

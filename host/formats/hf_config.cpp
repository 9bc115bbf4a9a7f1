#include "host/formats/hf_config.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <map>
#include <set>
#include <vector>

namespace tenon {
namespace {

// Keys that ModelConfig is made from, or that are checked on their own below.
const std::set<std::string_view> read_keys{"model_type",          "architectures",     "hidden_size",
                                           "intermediate_size",   "num_hidden_layers", "num_attention_heads",
                                           "num_key_value_heads", "head_dim",          "max_position_embeddings",
                                           "rms_norm_eps",        "rope_theta",        "rope_parameters",
                                           "rope_scaling",        "vocab_size",        "tie_word_embeddings",
                                           "bos_token_id",        "eos_token_id",      "pad_token_id",
                                           "layer_types"};

// Keys that change what the model computes, and the values (as JSON) that mean what we compute. Null counts as unsaid.
const std::map<std::string_view, std::vector<std::string_view>> neutral_values{
    {"hidden_act", {"\"silu\"", "\"swish\""}},
    {"attention_bias", {"false"}},
    {"mlp_bias", {"false"}},
    {"rope_interleaved", {"false"}},
    {"partial_rotary_factor", {"1", "1.0"}},
    {"sliding_window", {}},
    {"use_sliding_window", {"false"}},
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

[[noreturn]] void refuse(const std::string& where, std::string_view key, const json::value& value, const char* why) {
  std::string found = canonical_json(value);
  if (found.size() > 120) found = found.substr(0, 117) + "...";
  throw Error(Code::incompatible, where, fmt::format("{}: found {}, {}", key, found, why),
              "import a Llama-type model without this feature");
}

bool said(const JsonReader& config, std::string_view key) {
  return config.has(key) && !config.at(key).value().is_null();
}

void check_keys(const JsonReader& config, const std::string& where) {
  for (const auto& [name, value] : config.object()) {
    const std::string_view key = name;
    if (value.is_null() || read_keys.contains(key) || harmless_keys.contains(key)) continue;
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

void check_family(const JsonReader& config, const std::string& where) {
  if (config.at("model_type").string() != "llama") {
    refuse(where, "model_type", config.at("model_type").value(), "need \"llama\"");
  }
  if (said(config, "architectures")) {
    const JsonReader names = config.at("architectures");
    if (names.array().size() != 1 || names.at(std::size_t{0}).string() != "LlamaForCausalLM") {
      refuse(where, "architectures", names.value(), "need [\"LlamaForCausalLM\"]");
    }
  }
  if (said(config, "layer_types")) {
    const JsonReader types = config.at("layer_types");
    for (std::size_t i = 0; i < types.array().size(); ++i) {
      if (types.at(i).string() != "full_attention")
        refuse(where, "layer_types", types.value(), "need full_attention only");
    }
  }
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

std::vector<std::int64_t> read_eos(const JsonReader& config) {
  if (!config.has("eos_token_id")) return {2}; // transformers' default for this family
  const JsonReader eos = config.at("eos_token_id");
  if (eos.value().is_null()) return {};
  if (!eos.value().is_array()) return {eos.integer()};
  std::vector<std::int64_t> ids;
  for (std::size_t i = 0; i < eos.array().size(); ++i) ids.push_back(eos.at(i).integer());
  return ids;
}

} // namespace

ModelConfig read_hf_config(const json::value& value, const std::string& where) {
  const JsonReader config(value, where);
  check_family(config, where);
  check_keys(config, where);
  const auto integer = [&](std::string_view key, std::int64_t fallback) {
    return said(config, key) ? config.at(key).integer() : fallback;
  };
  ModelConfig c;
  c.hidden_size = config.at("hidden_size").integer();
  c.layers = config.at("num_hidden_layers").integer();
  c.heads = config.at("num_attention_heads").integer();
  c.kv_heads = integer("num_key_value_heads", c.heads);
  if (!said(config, "head_dim") && (c.heads < 1 || c.hidden_size % c.heads != 0)) {
    config.fail(fmt::format("hidden_size {} is no multiple of num_attention_heads {}", c.hidden_size, c.heads));
  }
  c.head_dim = said(config, "head_dim") ? config.at("head_dim").integer() : c.hidden_size / c.heads;
  c.ffn_size = config.at("intermediate_size").integer();
  c.vocab_size = config.at("vocab_size").integer();
  c.context_length = integer("max_position_embeddings", 2048); // this and the next: transformers' defaults
  c.rms_norm_eps = said(config, "rms_norm_eps") ? config.at("rms_norm_eps").number() : 1e-6;
  c.rope_theta = read_rope_theta(config, where);
  c.tie_embeddings = said(config, "tie_word_embeddings") && config.at("tie_word_embeddings").boolean();
  c.eos_ids = read_eos(config);
  if (!config.has("bos_token_id"))
    c.bos_id = 1; // transformers' default for this family
  else if (said(config, "bos_token_id"))
    c.bos_id = config.at("bos_token_id").integer();
  // Some checkpoints say -1 for "none".
  if (said(config, "pad_token_id") && integer("pad_token_id", -1) != -1) c.pad_id = config.at("pad_token_id").integer();
  return c;
}

} // namespace tenon

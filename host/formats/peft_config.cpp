#include "host/formats/peft.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string_view>

namespace tenon {
namespace {

constexpr std::int64_t kLargestRank = 65536;

const std::set<std::string_view> kRead = {
    "peft_type",      "base_model_name_or_path", "r",    "lora_alpha",        "use_rslora",
    "rank_pattern",   "alpha_pattern",           "bias", "init_lora_weights", "task_type",
    "target_modules", "layers_to_transform"};

// These change how an adapter is trained or found, or are told by its tensors. fan_in_fan_out matters only where
// B A is added into a transposed weight; the products themselves are the same.
const std::set<std::string_view> kHarmless = {"auto_mapping",
                                              "revision",
                                              "inference_mode",
                                              "exclude_modules",
                                              "lora_dropout",
                                              "fan_in_fan_out",
                                              "modules_to_save",
                                              "layers_pattern",
                                              "loftq_config",
                                              "eva_config",
                                              "corda_config",
                                              "lora_ga_config",
                                              "trainable_token_indices",
                                              "qalora_group_size",
                                              "runtime_config",
                                              "megatron_core",
                                              "ensure_weight_tying",
                                              "peft_version"};

// The other beginnings (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) also change the base's own weights.
const std::set<std::string> kBeginnings = {"true", "false", "\"gaussian\"", "\"orthogonal\"", "\"eva\""};

[[noreturn]] void refuse(const std::string& where, std::string_view key, const json::value& value,
                         const std::string& why, const std::string& remedy = "import an adapter without this option") {
  std::string found = canonical_json(value);
  if (found.size() > 120) found = found.substr(0, 117) + "...";
  throw Error(Code::incompatible, where, fmt::format("{}: found {}, {}", key, found, why), remedy);
}

bool said(const JsonReader& config, std::string_view key) {
  return config.has(key) && !config.at(key).value().is_null();
}

bool is_off(const json::value& value) {
  return value.is_null() || (value.is_bool() && !value.get_bool()) || (value.is_array() && value.get_array().empty()) ||
         (value.is_object() && value.get_object().empty());
}

void check_keys(const JsonReader& config, const std::string& where) {
  if (const JsonReader type = config.at("peft_type"); type.string() != "LORA")
    refuse(where, "peft_type", type.value(), "need \"LORA\"", "other kinds of adapters have no expert to become");
  for (const auto& [key, value] : config.object())
    if (!kRead.contains(key) && !kHarmless.contains(key) && !is_off(value))
      refuse(where, key, value, "an option that changes what the adapter computes, or is not known here");
  if (config.string("bias", "none") != "none")
    refuse(where, "bias", config.at("bias").value(), "need \"none\": biases cannot change");
  if (said(config, "init_lora_weights")) {
    const json::value& beginning = config.at("init_lora_weights").value();
    if (!kBeginnings.contains(canonical_json(beginning)))
      refuse(where, "init_lora_weights", beginning, "which also changes the base's own weights",
             "convert it to plain LoRA: PEFT's save_pretrained(path_initial_model_for_weight_conversion=...)");
  }
}

std::int64_t read_rank(const JsonReader& value) {
  const std::int64_t rank = value.integer();
  if (rank < 1 || rank > kLargestRank) value.fail(fmt::format("found rank {}, need 1 to {}", rank, kLargestRank));
  return rank;
}

double read_alpha(const JsonReader& value) {
  const double alpha = value.number();
  if (!(alpha > 0)) value.fail(fmt::format("found alpha {}, need more than 0", alpha));
  return alpha;
}

template <class Read>
auto read_pattern(const JsonReader& config, std::string_view key, Read read) {
  std::vector<std::pair<std::string, decltype(read(config))>> out;
  if (!said(config, key)) return out;
  const JsonReader pattern = config.at(key);
  for (const auto& member : pattern.object()) out.emplace_back(member.key(), read(pattern.at(member.key())));
  return out;
}

// A pattern for target_modules ("all-linear", a regular expression) is left to the tensors.
void read_targets(const JsonReader& config, PeftConfig& out) {
  if (said(config, "target_modules") && config.at("target_modules").value().is_array()) {
    const JsonReader names = config.at("target_modules");
    for (std::size_t i = 0; i < names.size(); ++i) out.target_modules.push_back(names.at(i).string());
  }
  if (!said(config, "layers_to_transform")) return;
  const JsonReader layers = config.at("layers_to_transform");
  if (layers.value().is_array())
    for (std::size_t i = 0; i < layers.size(); ++i) out.layers_to_transform.push_back(layers.at(i).integer());
  else
    out.layers_to_transform.push_back(layers.integer());
}

} // namespace

PeftConfig read_peft_config(const json::value& value, const std::string& where) {
  const JsonReader config(value, where);
  check_keys(config, where);
  PeftConfig out;
  if (said(config, "base_model_name_or_path")) out.base_model = config.at("base_model_name_or_path").string();
  out.rank = read_rank(config.at("r"));
  out.alpha = read_alpha(config.at("lora_alpha"));
  out.rank_stabilised = said(config, "use_rslora") && config.at("use_rslora").boolean();
  out.rank_pattern = read_pattern(config, "rank_pattern", read_rank);
  out.alpha_pattern = read_pattern(config, "alpha_pattern", read_alpha);
  read_targets(config, out);
  return out;
}

} // namespace tenon

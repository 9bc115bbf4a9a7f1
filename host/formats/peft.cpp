#include "host/formats/peft.hpp"

#include "registry/base/error.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pcre2.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

namespace tenon {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::uint32_t kMatchSteps = 100000; // a pattern that needs more is no name of modules
constexpr std::size_t kLongestPattern = 1000;

struct FreeRegex {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

// PEFT's rule: the pattern matches a name's end, from its beginning or after a dot.
class ModulePattern {
 public:
  ModulePattern(const std::string& pattern, const std::string& where) : where_(where), pattern_(pattern) {
    const std::string whole = "(.*\\.)?(" + pattern + ")$";
    int problem = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(whole.data()), whole.size(), PCRE2_ANCHORED, &problem, &at,
                              nullptr));
    if (pattern.size() > kLongestPattern || !code_) fail("is no regular expression that can be read here");
    match_.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    context_.reset(pcre2_match_context_create(nullptr));
    pcre2_set_match_limit(context_.get(), kMatchSteps);
    pcre2_set_depth_limit(context_.get(), kMatchSteps / 10);
    pcre2_set_heap_limit(context_.get(), 1024);
  }

  bool matches(const std::string& module) const {
    const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(module.data()), module.size(), 0, 0,
                                  match_.get(), context_.get());
    if (found < 0 && found != PCRE2_ERROR_NOMATCH) fail("takes too long to match");
    return found >= 0;
  }

 private:
  [[noreturn]] void fail(const char* why) const {
    throw Error(Code::incompatible, where_, "the pattern \"" + pattern_.substr(0, 100) + "\" " + why,
                "write rank_pattern and alpha_pattern with plain module names");
  }

  std::string where_, pattern_;
  std::unique_ptr<pcre2_code, FreeRegex> code_;
  std::unique_ptr<pcre2_match_data, FreeRegex> match_;
  std::unique_ptr<pcre2_match_context, FreeRegex> context_;
};

// The value of the first pattern that matches, or the fallback.
template <class Value>
class PatternTable {
 public:
  PatternTable(const std::vector<std::pair<std::string, Value>>& rows, Value fallback, const std::string& where)
      : fallback_(fallback) {
    for (const auto& [pattern, value] : rows) rows_.emplace_back(ModulePattern(pattern, where), value);
  }
  Value of(const std::string& module) const {
    for (const auto& [pattern, value] : rows_)
      if (pattern.matches(module)) return value;
    return fallback_;
  }

 private:
  std::vector<std::pair<ModulePattern, Value>> rows_;
  Value fallback_;
};

struct Halves {
  const TensorView *a = nullptr, *b = nullptr;
};

// "model.layers.0.self_attn.q_proj" of "model.layers.0.self_attn.q_proj.lora_A.weight"; nothing where that is not it.
std::optional<std::string> before(std::string_view name, std::string_view ending) {
  if (!name.ends_with(ending) || name.size() == ending.size()) return std::nullopt;
  return std::string(name.substr(0, name.size() - ending.size()));
}

constexpr const char* kSaveAgain = "the two files belong to different adapters, or are damaged; save the adapter again";

bool is_layer(const std::string& module, std::int64_t layer) {
  return ("." + module).find(fmt::format(".layers.{}.", layer)) != std::string::npos;
}

// PEFT leaves out what its configuration does not name, without a word.
void check_named(const std::string& module, const PeftConfig& config, const std::string& where) {
  const auto refuse = [&](const char* key, const std::string& said) {
    throw Error(Code::integrity, where,
                fmt::format("{}: found a change of it, adapter_config.json says {} [{}]", module, key, said),
                kSaveAgain);
  };
  const auto& names = config.target_modules;
  const auto& layers = config.layers_to_transform;
  const auto ends = [&](const std::string& name) { return ("." + module).ends_with("." + name); };
  if (!names.empty() && std::none_of(names.begin(), names.end(), ends))
    refuse("target_modules", fmt::format("{}", fmt::join(names, ", ")));
  if (!layers.empty() &&
      std::none_of(layers.begin(), layers.end(), [&](std::int64_t layer) { return is_layer(module, layer); }))
    refuse("layers_to_transform", fmt::format("{}", fmt::join(layers, ", ")));
}

void check_shapes(const PeftProduct& product, const std::string& where) {
  const auto& a = product.a.shape;
  const auto& b = product.b.shape;
  const auto rank = static_cast<std::size_t>(product.rank);
  if (a.size() == 2 && b.size() == 2 && a[0] == rank && b[1] == rank && a[1] > 0 && b[0] > 0) return;
  throw Error(Code::integrity, where,
              fmt::format("{}: found A of shape ({}) and B of shape ({}), adapter_config.json says rank {}: need "
                          "({}, in) and (out, {})",
                          product.module, fmt::join(a, ", "), fmt::join(b, ", "), product.rank, rank, rank),
              kSaveAgain);
}

PeftConfig config_of(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "adapter_config.json";
  return read_peft_config(read_json(path), path.string());
}

SafetensorsFile weights_of(const std::filesystem::path& folder) {
  std::error_code ignored;
  const std::filesystem::path path = folder / "adapter_model.safetensors";
  if (!std::filesystem::exists(path, ignored) && std::filesystem::exists(folder / "adapter_model.bin", ignored))
    throw Error(Code::incompatible, folder.string(), "found adapter_model.bin, need adapter_model.safetensors",
                "save it again: PeftModel.from_pretrained(...).save_pretrained(DIR, safe_serialization=True)");
  return SafetensorsFile(path);
}

} // namespace

PeftAdapter PeftAdapter::open(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored))
    throw Error(Code::not_found, folder.string(), "there is no such folder",
                "give the folder that holds adapter_config.json and adapter_model.safetensors");
  PeftConfig config = config_of(folder); // what it says is judged before its numbers are read
  return PeftAdapter(std::move(config), weights_of(folder));
}

PeftAdapter::PeftAdapter(PeftConfig config, SafetensorsFile file)
    : config_(std::move(config)), file_(std::make_shared<const SafetensorsFile>(std::move(file))) {
  std::map<std::string, Halves> halves;
  for (const TensorView& tensor : file_->tensors()) {
    if (!tensor.name.starts_with(kPrefix))
      throw Error(Code::integrity, name(),
                  fmt::format("found the tensor {}, need names that begin with {}", tensor.name, kPrefix),
                  "save the adapter with PEFT's save_pretrained");
    const std::string_view own = std::string_view(tensor.name).substr(kPrefix.size());
    if (const auto module = before(own, ".lora_A.weight"))
      halves[*module].a = &tensor;
    else if (const auto other = before(own, ".lora_B.weight"))
      halves[*other].b = &tensor;
    else
      others_.emplace_back(own);
  }
  const PatternTable<std::int64_t> ranks(config_.rank_pattern, config_.rank, name());
  const PatternTable<double> alphas(config_.alpha_pattern, config_.alpha, name());
  for (const auto& [module, pair] : halves) {
    if (!pair.a || !pair.b)
      throw Error(Code::integrity, name(),
                  fmt::format("{}: found {}, its other half {} is missing", module, pair.a ? "lora_A" : "lora_B",
                              pair.a ? "lora_B" : "lora_A"),
                  "save the adapter again");
    check_named(module, config_, name());
    PeftProduct product{module, stored_tensor(*file_, pair.a->name), stored_tensor(*file_, pair.b->name),
                        ranks.of(module), 0};
    check_shapes(product, name());
    const auto rank = static_cast<double>(product.rank);
    product.scale = alphas.of(module) / (config_.rank_stabilised ? std::sqrt(rank) : rank);
    products_.push_back(std::move(product));
  }
  if (products_.empty() && others_.empty())
    throw Error(Code::integrity, name(), "holds no tensors", "save the adapter again");
}

} // namespace tenon

// Hugging Face's tokenizer.json (the `tokenizers` library's format) and tokenizer_config.json.
#include "host/formats/splitter.hpp"
#include "host/formats/tokenizer_data.hpp"
#include "host/formats/utf8.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/json.hpp"

#include <algorithm>
#include <boost/json.hpp>
#include <limits>

namespace tenon {
namespace {

bool is_null(const JsonReader& reader, std::string_view key) {
  return !reader.has(key) || reader.at(key).value().is_null();
}

[[noreturn]] void refuse(const std::string& where, const std::string& found, const std::string& need) {
  throw Error(Code::incompatible, where, "found " + found + ", need " + need,
              "this tokenizer would give other ids here than where the model was trained");
}

std::string type_of(const JsonReader& component) { return utf8_replaced(component.at("type").string()); }

void refuse_unless_null(const JsonReader& root, const std::string& where, std::string_view key) {
  if (is_null(root, key)) return;
  const JsonReader component = root.at(key);
  const std::string name = component.value().is_object() && component.has("type") ? " " + type_of(component) : "";
  refuse(where, std::string(key) + name, std::string("no ") + std::string(key));
}

constexpr const char* kSplits = "ByteLevel (gpt2), Digits and ByteLevel (smollm), or Split and ByteLevel";

// "ByteLevel" as pre-tokenizer; returns use_regex.
bool byte_level(const JsonReader& component, const std::string& where) {
  if (type_of(component) != "ByteLevel") refuse(where, "the pre-tokenizer " + type_of(component), "ByteLevel last");
  if (component.boolean("add_prefix_space", true)) refuse(where, "add_prefix_space true", "false");
  return component.boolean("use_regex", true);
}

// What stands before ByteLevel in a Sequence: each digit alone, or a pattern written out.
std::string split_of_pair(const JsonReader& first, const JsonReader& last, const std::string& where) {
  const std::string type = type_of(first);
  const bool use_regex = byte_level(last, where);
  if (type == "Digits" && use_regex) {
    if (first.boolean("individual_digits", false)) return "smollm";
    refuse(where, "Digits with individual_digits false", "true");
  }
  if (type == "Split" && !use_regex) {
    const JsonReader pattern = first.at("pattern");
    const std::string regex = pattern.has("Regex") ? pattern.at("Regex").string() : "";
    const auto known = Splitter::of_written(regex);
    if (known && first.at("behavior").string() == "Isolated" && !first.boolean("invert", false)) {
      return std::string(*known);
    }
    refuse(where, "Split by \"" + utf8_replaced(regex) + "\"",
           "GPT-2's, Llama 3's or Qwen2's pattern, Isolated, not inverted");
  }
  refuse(where, "the pre-tokenizers " + type + " and ByteLevel", kSplits);
}

std::string split_of(const JsonReader& component, const std::string& where) {
  if (type_of(component) != "Sequence") {
    if (byte_level(component, where)) return "gpt2";
    refuse(where, "ByteLevel with use_regex false", "a pattern");
  }
  const JsonReader parts = component.at("pretokenizers");
  parts.array();
  if (parts.size() == 1) return split_of(parts.at(0), where);
  if (parts.size() == 2) return split_of_pair(parts.at(0), parts.at(1), where);
  std::string names;
  for (std::size_t i = 0; i < parts.size(); ++i) names += (i ? ", " : "") + type_of(parts.at(i));
  refuse(where, "the pre-tokenizers " + names, kSplits);
}

std::pair<std::string, std::string> read_merge(const JsonReader& merge) {
  if (merge.value().is_array()) {
    if (merge.size() != 2) merge.fail("found " + std::to_string(merge.size()) + " parts, need 2");
    return {merge.at(0).string(), merge.at(1).string()};
  }
  const std::string pair = merge.string();
  const std::size_t space = pair.find(' ');
  if (space == std::string::npos) merge.fail("found a merge without a space, need \"left right\"");
  return {pair.substr(0, space), pair.substr(space + 1)};
}

void read_model(const JsonReader& model, const std::string& where, TokenizerData& data) {
  // Very old files leave the type out; vocabulary and merges say what they are.
  if (const std::string type = model.string("type", "BPE"); type != "BPE") {
    refuse(where, "the model " + utf8_replaced(type), "BPE");
  }
  if (!is_null(model, "dropout") && model.at("dropout").number() != 0) refuse(where, "dropout", "none");
  for (std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!is_null(model, key) && !model.at(key).string().empty()) refuse(where, std::string(key), "none");
  }
  if (model.boolean("byte_fallback", false)) refuse(where, "byte_fallback", "byte-level symbols");
  data.ignore_merges = model.boolean("ignore_merges", false);

  const json::object& vocabulary = model.at("vocab").object();
  data.tokens.resize(vocabulary.size());
  std::vector<bool> taken(vocabulary.size(), false);
  for (const auto& member : vocabulary) {
    const std::int64_t id = model.at("vocab").at(member.key()).integer();
    if (id < 0 || static_cast<std::size_t>(id) >= taken.size() || taken[static_cast<std::size_t>(id)]) {
      model.at("vocab").fail("found the id " + std::to_string(id) + " (of \"" + std::string(member.key()) +
                             "\"), need each of 0.." + std::to_string(taken.size() - 1) + " once");
    }
    taken[static_cast<std::size_t>(id)] = true;
    data.tokens[static_cast<std::size_t>(id)] = member.key();
  }
  const JsonReader merges = model.at("merges");
  merges.array();
  data.merges.reserve(merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i) data.merges.push_back(read_merge(merges.at(i)));
}

void read_added(const JsonReader& root, const std::string& where, TokenizerData& data) {
  if (is_null(root, "added_tokens")) return;
  const JsonReader list = root.at("added_tokens");
  list.array();
  for (std::size_t i = 0; i < list.size(); ++i) {
    const JsonReader item = list.at(i);
    AddedToken token;
    const std::int64_t id = item.at("id").integer();
    if (id < 0 || id > std::numeric_limits<std::int32_t>::max()) item.at("id").fail("found no token id");
    token.id = static_cast<std::int32_t>(id);
    token.content = item.at("content").string();
    token.special = item.boolean("special", false);
    token.lstrip = item.boolean("lstrip", false);
    token.rstrip = item.boolean("rstrip", false);
    token.normalized = item.boolean("normalized", !token.special);
    if (item.boolean("single_word", false)) {
      refuse(where, "single_word on the added token \"" + utf8_replaced(token.content) + "\"", "false");
    }
    data.added.push_back(std::move(token));
  }
  std::sort(data.added.begin(), data.added.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
}

// TemplateProcessing that puts one special token before the text is BOS; any other is refused.
void read_template(const JsonReader& processor, const std::string& where, TokenizerData& data) {
  const JsonReader single = processor.at("single");
  single.array();
  const auto is = [&](std::size_t i, const char* kind) { return single.at(i).object().contains(kind); };
  if (single.size() == 1 && is(0, "Sequence")) return;
  if (single.size() != 2 || !is(0, "SpecialToken") || !is(1, "Sequence")) {
    refuse(where, "a TemplateProcessing that does more than lead with one token", "one leading token, or none");
  }
  const std::string name = single.at(0).at("SpecialToken").at("id").string();
  const auto token =
      std::find_if(data.added.begin(), data.added.end(), [&](const auto& t) { return t.content == name; });
  if (token == data.added.end()) single.fail("found \"" + utf8_replaced(name) + "\", need one of the added tokens");
  if (data.add_bos) single.fail("found a second TemplateProcessing that leads with a token, need one");
  data.bos = token->id;
  data.add_bos = true;
}

// ByteLevel, TemplateProcessing, or a Sequence of them.
void read_post_processor(const JsonReader& processor, const std::string& where, TokenizerData& data) {
  const std::string type = type_of(processor);
  if (type == "ByteLevel") return; // moves offsets only
  if (type == "TemplateProcessing") return read_template(processor, where, data);
  if (type != "Sequence") refuse(where, "the post-processor " + type, "ByteLevel or TemplateProcessing");
  const JsonReader parts = processor.at("processors");
  parts.array();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (type_of(parts.at(i)) == "Sequence") refuse(where, "a post-processor Sequence in another", "one Sequence");
    read_post_processor(parts.at(i), where, data);
  }
}

// "" or "nfc". Normalising comes after added tokens are found in the text as it stands.
std::string read_normalizer(const JsonReader& root, const std::string& where) {
  if (is_null(root, "normalizer")) return "";
  const std::string type = type_of(root.at("normalizer"));
  if (type != "NFC") refuse(where, "normalizer " + type, "NFC, or none");
  return "nfc";
}

} // namespace

TokenizerData parse_hf_tokenizer(std::string_view text, std::string_view where_view) {
  const std::string where(where_view);
  const json::value value = parse_json(text, where);
  const JsonReader root(value, where);
  root.object();
  for (std::string_view key : {"truncation", "padding"}) refuse_unless_null(root, where, key);
  TokenizerData data;
  data.normalizer = read_normalizer(root, where);
  if (is_null(root, "pre_tokenizer")) refuse(where, "no pre-tokenizer", "ByteLevel");
  data.split = split_of(root.at("pre_tokenizer"), where);
  if (is_null(root, "decoder")) refuse(where, "no decoder", "ByteLevel");
  if (const std::string type = type_of(root.at("decoder")); type != "ByteLevel") {
    refuse(where, "the decoder " + type, "ByteLevel");
  }
  read_model(root.at("model"), where, data);
  read_added(root, where, data);
  if (!is_null(root, "post_processor")) read_post_processor(root.at("post_processor"), where, data);
  return data;
}

namespace {

// "<|im_end|>", or an added-token object with `content`.
std::optional<std::int32_t> named_token(const JsonReader& config, std::string_view key, const TokenizerData& data) {
  if (is_null(config, key)) return std::nullopt;
  const JsonReader member = config.at(key);
  const std::string content = member.value().is_object() ? member.at("content").string() : member.string();
  for (const AddedToken& token : data.added) {
    if (token.content == content) return token.id;
  }
  const auto found = std::find(data.tokens.begin(), data.tokens.end(), content);
  if (found == data.tokens.end()) member.fail("found \"" + utf8_replaced(content) + "\", which is no token");
  return static_cast<std::int32_t>(found - data.tokens.begin());
}

// One template, or a list of named ones of which "default" counts.
std::string chat_template_of(const JsonReader& config) {
  if (is_null(config, "chat_template")) return "";
  const JsonReader member = config.at("chat_template");
  if (!member.value().is_array()) return member.string();
  for (std::size_t i = 0; i < member.size(); ++i) {
    if (member.at(i).at("name").string() == "default") return member.at(i).at("template").string();
  }
  return "";
}

} // namespace

TokenizerData read_hf_tokenizer(const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / "tokenizer.json";
  TokenizerData data = parse_hf_tokenizer(read_file(file), file.string());
  const std::filesystem::path config_file = directory / "tokenizer_config.json";
  if (std::filesystem::exists(config_file)) {
    const json::value value = read_json(config_file);
    const JsonReader config(value, config_file.string());
    if (const auto bos = named_token(config, "bos_token", data)) data.bos = bos;
    data.eos = named_token(config, "eos_token", data);
    if (!is_null(config, "add_bos_token")) data.add_bos = config.at("add_bos_token").boolean();
    if (config.boolean("add_prefix_space", false)) refuse(config_file.string(), "add_prefix_space true", "false");
    if (!is_null(config, "add_eos_token") && config.at("add_eos_token").boolean()) {
      refuse(config_file.string(), "add_eos_token true", "false");
    }
    data.chat_template = chat_template_of(config);
  }
  const std::filesystem::path jinja = directory / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) data.chat_template = read_file(jinja);
  return data;
}

TokenizerData byte_tokenizer() {
  TokenizerData data;
  data.type = "bytes";
  data.split = "";
  const char* names[] = {"<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"};
  for (std::int32_t i = 0; i < 4; ++i) data.added.push_back({.id = 256 + i, .content = names[i]});
  data.bos = 256;
  data.eos = 257;
  return data;
}

} // namespace tenon

// The tokenizer inside a GGUF file (keys tokenizer.ggml.*, tokenizer.chat_template).
#include "host/formats/gguf.hpp"
#include "host/formats/tokenizer_data.hpp"
#include "host/formats/utf8.hpp"
#include "registry/base/error.hpp"

namespace tenon {
namespace {

// llama.cpp's names of pre-tokenizers, and what they stand for beside the split: Llama 3 takes words that are tokens
// whole and leads with BOS unless a key says otherwise; Qwen2's reference normalises, which no key records.
struct Pre {
  std::string_view name;
  const char *split, *normalizer;
  bool whole_words_and_bos;
};
constexpr Pre kPres[] = {{"gpt-2", "gpt2", "", false},
                         {"smollm", "smollm", "", false},
                         {"llama-bpe", "llama3", "", true},
                         {"qwen2", "qwen2", "nfc", false}};

// llama.cpp's token types.
enum TokenType : std::int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5 };

[[noreturn]] void refuse(const GgufFile& file, const std::string& key, const std::string& found,
                         const std::string& need) {
  throw Error(Code::incompatible, "gguf", file.name() + ": " + key + " is " + found + ", need " + need,
              "this tokenizer would give other ids here than where the model was trained");
}

const Pre& pre_of(const GgufFile& file) {
  const std::string_view name = file.string("tokenizer.ggml.pre");
  std::string known;
  for (const Pre& pre : kPres) {
    if (name == pre.name) return pre;
    known += (known.empty() ? "" : ", ") + std::string(pre.name);
  }
  refuse(file, "tokenizer.ggml.pre", "\"" + utf8_replaced(name) + "\"", "one of: " + known);
}

[[noreturn]] void damaged(const GgufFile& file, const std::string& message) {
  throw Error(Code::integrity, "gguf", file.name() + ": " + message, "download the file again");
}

std::optional<std::int32_t> id_of(const GgufFile& file, std::string_view key, std::size_t tokens) {
  if (!file.has(key)) return std::nullopt;
  const std::int64_t id = file.integer(key);
  if (id < 0 || static_cast<std::size_t>(id) >= tokens) {
    damaged(file,
            std::string(key) + " is " + std::to_string(id) + ", need one of " + std::to_string(tokens) + " tokens");
  }
  return static_cast<std::int32_t>(id);
}

void read_added(const GgufFile& file, TokenizerData& data) {
  const std::vector<std::int64_t> types = file.integers("tokenizer.ggml.token_type");
  if (types.size() != data.tokens.size()) {
    damaged(file, "tokenizer.ggml.token_type has " + std::to_string(types.size()) + " entries, need " +
                      std::to_string(data.tokens.size()) + ", one a token");
  }
  for (std::size_t id = 0; id < types.size(); ++id) {
    if (types[id] == kNormal || types[id] == kUnused) continue;
    if (types[id] != kControl && types[id] != kUserDefined && types[id] != kUnknown) {
      refuse(file, "the type of token " + std::to_string(id), std::to_string(types[id]), "1 to 5");
    }
    AddedToken token;
    token.id = static_cast<std::int32_t>(id);
    token.content = data.tokens[id];
    token.special = types[id] != kUserDefined;
    data.added.push_back(std::move(token));
  }
}

} // namespace

TokenizerData read_gguf_tokenizer(const GgufFile& file) {
  if (const std::string_view model = file.string("tokenizer.ggml.model"); model != "gpt2") {
    refuse(file, "tokenizer.ggml.model", "\"" + utf8_replaced(model) + "\"", "gpt2 (byte-level BPE)");
  }
  TokenizerData data;
  const Pre& pre = pre_of(file);
  data.split = pre.split;
  data.normalizer = pre.normalizer;
  data.ignore_merges = pre.whole_words_and_bos;
  if (file.boolean("tokenizer.ggml.add_space_prefix", false)) {
    refuse(file, "tokenizer.ggml.add_space_prefix", "true", "false");
  }
  if (file.boolean("tokenizer.ggml.add_eos_token", false))
    refuse(file, "tokenizer.ggml.add_eos_token", "true", "false");
  for (std::string_view token : file.strings("tokenizer.ggml.tokens")) data.tokens.emplace_back(token);
  for (std::string_view merge : file.strings("tokenizer.ggml.merges")) {
    const std::size_t space = merge.find(' ');
    if (space == std::string_view::npos) {
      damaged(file, "merge " + std::to_string(data.merges.size()) + " has no space, need \"left right\"");
    }
    data.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  if (file.has("tokenizer.ggml.token_type")) read_added(file, data);
  data.bos = id_of(file, "tokenizer.ggml.bos_token_id", data.tokens.size());
  data.eos = id_of(file, "tokenizer.ggml.eos_token_id", data.tokens.size());
  data.add_bos = file.boolean("tokenizer.ggml.add_bos_token", pre.whole_words_and_bos && data.bos);
  data.chat_template = file.string("tokenizer.chat_template", "");
  return data;
}

} // namespace tenon

// What a tokenizer is made of, as plain data, and where it may come from.
// Thread: values; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tenon {

// A token that is looked for in the text before it is split into words; the longest at the leftmost place wins.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;     // exact bytes, valid UTF-8
  bool special = true;     // found only where special tokens are parsed
  bool lstrip = false;     // takes the white space before it
  bool rstrip = false;     // takes the white space after it
  bool normalized = false; // looked for after those that are not
};

struct TokenizerData {
  std::string type = "bpe"; // "bpe", "bytes"
  // How text is cut into words: "gpt2" (GPT-2's pattern), "smollm" (each digit alone, then GPT-2's pattern), "llama3",
  // "qwen2" (their patterns).
  std::string split = "gpt2";
  // "nfc": text between added tokens is brought to Unicode's composed form first. "": it is taken as it stands.
  std::string normalizer;
  // id -> token, in byte-level symbols (GPT-2's table: one printable character a byte); added tokens as they are.
  // For "bytes": empty, ids 0..255 are the bytes.
  std::vector<std::string> tokens;
  std::vector<std::pair<std::string, std::string>> merges; // in order of rank
  std::vector<AddedToken> added;                           // by id
  bool ignore_merges = false;                              // a word that is itself a token is taken whole
  std::optional<std::int32_t> bos, eos;
  bool add_bos = false;
  std::string chat_template;
};

// 256 bytes, then <|bos|> 256, <|eos|> 257, <|im_start|> 258, <|im_end|> 259.
TokenizerData byte_tokenizer();

// A Hugging Face tokenizer.json. Components that we do not have are refused by name. BOS, EOS and the chat template are
// not in this file: see read_hf_tokenizer. Errors: integrity, incompatible.
TokenizerData parse_hf_tokenizer(std::string_view text, std::string_view where);

// A Hugging Face directory: tokenizer.json with tokenizer_config.json (BOS, EOS, add_bos_token, chat_template), and
// chat_template.jinja where there is one. Errors: not_found, integrity, incompatible.
TokenizerData read_hf_tokenizer(const std::filesystem::path& directory);

class GgufFile;
// The tokenizer inside a GGUF file: tokenizer.ggml.model "gpt2" with a pre-tokenizer we know.
// Errors: integrity, incompatible.
TokenizerData read_gguf_tokenizer(const GgufFile& file);

} // namespace tenon

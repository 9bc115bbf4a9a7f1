// Text to ids and back: byte-level BPE, and plain bytes.
//
// One rule for every input: decode(encode(text)) == text, byte for byte, whatever the bytes are. (The two exceptions
// are asked for by the tokenizer itself: an added token with lstrip or rstrip takes the white space beside it, and a
// tokenizer that normalises gives the text back in Unicode's composed form, NFC.)
//
// Invalid UTF-8. Valid stretches and ill-formed stretches are encoded apart: a valid stretch is split into words by the
// tokenizer's pattern, an ill-formed stretch is one word as it stands. A byte is one symbol of the vocabulary, whether
// or not it belongs to a character, and goes through unchanged. Some vocabularies lack some bytes (SmolLM2's lacks 21:
// six control characters, and bytes that valid UTF-8 hardly or never uses). A byte b that the vocabulary lacks is
// written as the three bytes of the surrogate U+DC00+b (Python's "surrogateescape"), which valid UTF-8 never holds, and
// decoding turns it back. An ill-formed text that itself holds such a surrogate has that ED escaped in the same way.
// Reference implementations drop such bytes.
//
// Words longer than any real one cost no more a byte than short ones: merging takes O(n log n).
// Thread: a Tokenizer is immutable and shared freely. StreamDecoder: one thread.
#pragma once

#include "host/formats/tokenizer_data.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

class Tokenizer {
 public:
  // Errors: integrity (contradicts itself), incompatible (a splitter we do not know, by name).
  explicit Tokenizer(TokenizerData data);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // The package's tokenizer.json: Tenon's own schema, canonical, so that one tokenizer has one digest.
  // Errors: integrity.
  static Tokenizer from_json(std::string_view text, std::string_view where = "tokenizer.json");
  std::string json() const; // from_json(json()) is this tokenizer; made anew by every call
  // "sha256:" of json(): the tokenizer digest of the model contract.
  const std::string& digest() const;

  // The ids of the text, no BOS. parse_special: special tokens written out in the text ("<|im_end|>") become their ids;
  // otherwise they are ordinary characters. Added tokens that are not special are always found.
  std::vector<std::int32_t> encode(std::string_view text, bool parse_special = false) const;
  // As encode, led by BOS where the model's setting says so. Special tokens are parsed.
  std::vector<std::int32_t> encode_prompt(std::string_view text) const;

  // The bytes of the ids. skip_special leaves out special tokens. Errors: usage (an id outside the vocabulary).
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;
  // The bytes one id stands for (before unescaping); borrowed from the tokenizer. Errors: usage.
  std::string_view token_bytes(std::int32_t id) const;
  bool is_special(std::int32_t id) const;
  // The id of a token given by its exact bytes, added tokens first ("<|im_end|>").
  std::optional<std::int32_t> find(std::string_view token) const;

  // A model may have more rows than this (padding); ids are below it.
  std::int32_t vocab_size() const;
  std::optional<std::int32_t> bos() const;
  std::optional<std::int32_t> eos() const;
  // What stands between documents in a corpus: "<|endoftext|>" where there is one, else EOS.
  std::optional<std::int32_t> separator() const;
  bool add_bos() const;
  const std::string& chat_template() const; // Jinja source, or empty
  const std::string& type() const;          // "bpe", "bytes"
  const TokenizerData& data() const;        // without vocabulary and merges, which are in json()

  // False when decoding must look for escaped bytes (see above).
  bool has_every_byte() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

// Ids to text as they come. Everything emitted is valid UTF-8 in whole characters: all pieces joined equal
// utf8_replaced(decode(ids)).
// Borrows the tokenizer.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false);

  // The characters this id completes; often empty. Errors: usage (an id outside the vocabulary).
  std::string push(std::int32_t id);
  // What is left, an unfinished character as U+FFFD. The decoder is then as new.
  std::string flush();

 private:
  std::string take(bool last);

  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string raw_;     // bytes of tokens, escapes not yet undone
  std::string pending_; // bytes of the text that may still become a character
};

} // namespace tenon

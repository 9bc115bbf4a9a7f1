// Inside of Tokenizer; for tokenizer*.cpp only.
#pragma once

#include "host/formats/added_tokens.hpp"
#include "host/formats/bpe.hpp"
#include "host/formats/byte_escape.hpp"
#include "host/formats/splitter.hpp"
#include "host/formats/tokenizer.hpp"

#include <algorithm>
#include <array>
#include <unordered_map>

namespace tenon {

// The canonical tokenizer.json.
std::string tokenizer_json(const TokenizerData& data);

struct Tokenizer::Impl {
  explicit Impl(TokenizerData given);

  const std::vector<AddedToken>& checked_added() const;
  void check_normalizer() const;
  void read_vocabulary();
  void read_merges();
  void place_added();
  void index_tokens();
  void find_bytes();
  void check_id(const char* what, const std::optional<std::int32_t>& id) const;

  // symbols: scratch.
  void encode_word(std::string_view word, std::vector<std::int32_t>& symbols, std::vector<std::int32_t>& out) const;
  void encode_text(std::string_view text, std::vector<std::int32_t>& out) const;

  TokenizerData data;
  AddedTokens added;
  std::optional<Splitter> splitter; // with bpe
  std::optional<Bpe> bpe;
  std::vector<std::string> token_texts;                           // id -> bytes
  std::vector<bool> special;                                      // by id
  std::unordered_map<std::string_view, std::int32_t> ids_by_text; // borrows from token_texts
  std::array<std::int32_t, 256> byte_ids;                         // -1: not in the vocabulary
  bool every_byte = true;
  std::string json, digest;
};

} // namespace tenon

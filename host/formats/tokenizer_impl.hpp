// Inside of Tokenizer; for tokenizer*.cpp only.
#pragma once

#include "host/formats/added_tokens.hpp"
#include "host/formats/bpe.hpp"
#include "host/formats/byte_escape.hpp"
#include "host/formats/splitter.hpp"
#include "host/formats/token_table.hpp"
#include "host/formats/tokenizer.hpp"

#include <algorithm>
#include <array>
#include <map>

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
  // data as it was given.
  TokenizerData whole() const;

  // symbols: scratch.
  void encode_word(std::string_view word, std::vector<std::int32_t>& symbols, std::vector<std::int32_t>& out) const;
  void encode_text(std::string_view text, std::vector<std::int32_t>& out) const;

  TokenizerData data; // without tokens and merges once they are read
  AddedTokens added;
  std::optional<Splitter> splitter; // with bpe
  std::optional<Bpe> bpe;
  std::size_t vocabulary = 0;                  // how many tokens were given
  std::map<std::int32_t, std::string> spelled; // added ones that the vocabulary spells otherwise
  TokenTable texts;                            // id -> bytes
  std::vector<bool> special;                   // by id
  std::array<std::int32_t, 256> byte_ids;      // -1: not in the vocabulary
  bool every_byte = true;
  std::string digest;
};

} // namespace tenon

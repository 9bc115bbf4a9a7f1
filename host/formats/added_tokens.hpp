// Finds added tokens in raw text: leftmost first, the longest of those that start at one place.
// Thread: immutable; any thread.
#pragma once

#include "host/formats/tokenizer_data.hpp"

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tenon {

// A stretch of text, or an added token found there.
struct TextPart {
  std::string_view text;
  std::int32_t id = -1; // >= 0: this token
};

class AddedTokens {
 public:
  explicit AddedTokens(const std::vector<AddedToken>& tokens);

  // The parts of the text in order, none empty. special: also look for special tokens.
  std::vector<TextPart> split(std::string_view text, bool special) const;

 private:
  using Buckets = std::array<std::vector<AddedToken>, 256>; // by first byte, longest first

  static void split_by(const Buckets& buckets, std::string_view text, bool special, std::vector<TextPart>& parts);

  Buckets raw_, normalized_;
  bool any_normalized_ = false;
};

} // namespace tenon

// UTF-8 as Unicode defines it (no surrogates, no overlong forms, nothing above U+10FFFF).
//
// An ill-formed stretch is divided as the Unicode standard recommends ("maximal subparts"): each part is the longest
// prefix of a character that could still have become one, or a single byte.
// Thread: any; pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tenon {

struct Utf8Step {
  std::size_t length_bytes; // of the character, or of the ill-formed part; 0 only for an empty text
  bool valid;
  bool incomplete; // not valid, but the text ends before it could be decided: more bytes may complete it
};

// What stands at the start of the text.
Utf8Step utf8_step(std::string_view text);

// Length of the longest valid prefix.
std::size_t utf8_valid_prefix(std::string_view text);

// Bytes that belong to no character.
std::size_t utf8_invalid_bytes(std::string_view text);

// A copy in which every ill-formed part is one U+FFFD.
std::string utf8_replaced(std::string_view text);

// The text in Unicode's composed form (NFC, UAX #15): the text itself where it has that form already, else scratch,
// which then holds it. Requires: the text is valid UTF-8. Errors: usage above 2 GiB; environment, when there is no
// memory for it.
std::string_view utf8_composed(std::string_view text, std::string& scratch);

// The UTF-8 form of a scalar value.
void utf8_append(std::string& text, char32_t character);

} // namespace tenon

#include "host/formats/utf8.hpp"

#include "registry/base/error.hpp"

#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <algorithm>
#include <cstdint>
#include <limits>

namespace tenon {
namespace {

struct Lead {
  int continuation;        // bytes that follow
  unsigned char low, high; // range of the first of them
};

// Unicode, table 3-7: what may follow a lead byte. continuation 0: no lead byte.
Lead lead_of(unsigned char byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {0, 0, 0};
}

} // namespace

Utf8Step utf8_step(std::string_view text) {
  if (text.empty()) return {0, false, true};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return {1, true, false};
  const Lead lead = lead_of(byte(0));
  if (lead.continuation == 0) return {1, false, false};
  unsigned char low = lead.low, high = lead.high;
  for (int i = 1; i <= lead.continuation; ++i, low = 0x80, high = 0xBF) {
    const auto at = static_cast<std::size_t>(i);
    if (at >= text.size()) return {at, false, true};
    if (byte(at) < low || byte(at) > high) return {at, false, false};
  }
  return {static_cast<std::size_t>(lead.continuation) + 1, true, false};
}

std::size_t utf8_valid_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Step step = utf8_step(text.substr(at));
    if (!step.valid) break;
    at += step.length_bytes;
  }
  return at;
}

std::size_t utf8_invalid_bytes(std::string_view text) {
  std::size_t invalid = 0;
  for (;;) {
    text.remove_prefix(utf8_valid_prefix(text));
    if (text.empty()) return invalid;
    const std::size_t length = utf8_step(text).length_bytes;
    invalid += length;
    text.remove_prefix(length);
  }
}

std::string utf8_replaced(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (;;) {
    const std::size_t valid = utf8_valid_prefix(text);
    out.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) return out;
    out.append("\xEF\xBF\xBD");
    text.remove_prefix(utf8_step(text).length_bytes);
  }
}

std::string_view utf8_composed(std::string_view text, std::string& scratch) {
  // Every character below U+0300, the first combining mark, stands for itself; its bytes are all below CC.
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0xCC; })) return text;
  constexpr std::size_t most = std::numeric_limits<std::int32_t>::max();
  if (text.size() > most)
    throw Error(Code::usage, "unicode",
                "found " + std::to_string(text.size()) + " bytes in one text, need at most " + std::to_string(most));
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(status);
  const icu::StringPiece piece(text.data(), static_cast<std::int32_t>(text.size()));
  if (U_SUCCESS(status) && nfc->isNormalizedUTF8(piece, status)) return text;
  scratch.clear();
  icu::StringByteSink<std::string> sink(&scratch);
  if (U_SUCCESS(status)) nfc->normalizeUTF8(0, piece, sink, nullptr, status);
  if (U_FAILURE(status))
    throw Error(Code::environment, "unicode", std::string("composing a text failed: ") + u_errorName(status));
  return scratch;
}

void utf8_append(std::string& text, char32_t c) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  const auto tail = [&](int shift) { put(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | (c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12));
    tail(6);
    tail(0);
  } else {
    put(0xF0 | (c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

} // namespace tenon

#include "host/formats/byte_escape.hpp"

namespace tenon {
namespace {

unsigned char at(std::string_view text, std::size_t index) { return static_cast<unsigned char>(text[index]); }

// ED, B0..B3, 80..BF is U+DC00..U+DCFF. True if the text, as far as it goes, agrees.
bool may_be_escape(std::string_view text) {
  if (!text.empty() && at(text, 0) != 0xED) return false;
  if (text.size() > 1 && (at(text, 1) < 0xB0 || at(text, 1) > 0xB3)) return false;
  return text.size() < 3 || (at(text, 2) & 0xC0) == 0x80;
}

} // namespace

void append_escape(std::string& out, unsigned char byte) {
  out.push_back('\xED');
  out.push_back(static_cast<char>(0xB0 | (byte >> 6)));
  out.push_back(static_cast<char>(0x80 | (byte & 0x3F)));
}

bool starts_with_escape(std::string_view text) { return text.size() >= 3 && may_be_escape(text); }

std::size_t unescape(std::string_view raw, bool last, std::string& out) {
  std::size_t used = 0;
  while (used < raw.size()) {
    const std::size_t lead = std::min(raw.find('\xED', used), raw.size());
    out.append(raw.substr(used, lead - used));
    used = lead;
    const std::string_view rest = raw.substr(used);
    if (rest.empty()) break;
    if (starts_with_escape(rest)) {
      out.push_back(static_cast<char>(((at(rest, 1) & 3) << 6) | (at(rest, 2) & 0x3F)));
      used += 3;
    } else if (rest.size() < 3 && may_be_escape(rest) && !last) {
      break;
    } else {
      out.push_back(rest[0]);
      ++used;
    }
  }
  return used;
}

} // namespace tenon

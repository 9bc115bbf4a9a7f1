#include "host/report/html.hpp"

#include "host/formats/utf8.hpp"

#include <boost/json/serialize.hpp>

namespace tenon {

std::string html_text(std::string_view text) {
  std::string out;
  for (const char c : utf8_replaced(text)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f) // U+2400 + c, or U+2421
      out += {'\xe2', '\x90', static_cast<char>(0x80 + (byte == 0x7f ? 0x21 : byte))};
    else
      out += c;
  }
  return out;
}

std::string html_json(const json::value& value) {
  std::string out;
  for (const char c : json::serialize(value)) {
    if (c == '<')
      out += "\\u003c";
    else if (c == '>')
      out += "\\u003e";
    else if (c == '&')
      out += "\\u0026";
    else
      out += c;
  }
  return out;
}

} // namespace tenon

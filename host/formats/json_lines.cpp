#include "host/formats/json_lines.hpp"

#include <algorithm>

namespace tenon {

void read_json_line(std::string_view line, const std::string& file, std::size_t number, const std::string& unit,
                    const std::string& remedy, const JsonLine& read) {
  if (line.find_first_not_of(" \t\r") == std::string_view::npos) return;
  const std::string where = file + ":" + std::to_string(number);
  try {
    const json::value value = parse_json(line, where);
    read(JsonReader(value, where), number);
  } catch (const Error& found) {
    if (found.code != Code::integrity) throw;
    throw Error(Code::usage, unit, where + ": " + found.message, remedy);
  }
}

void read_json_lines(std::string_view text, const std::string& file, const std::string& unit, const std::string& remedy,
                     const JsonLine& read, const BadJsonLine& bad) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    try {
      read_json_line(line, file, number, unit, remedy, read);
    } catch (const Error& error) {
      if (!bad) throw;
      bad(number, error);
    }
  }
}

} // namespace tenon

// JSONL: one JSON value a line, blank lines left out. Untrusted text; every complaint names the file and the line.
// Thread: a pure function of its arguments.
#pragma once

#include "registry/base/json.hpp"

#include <functional>
#include <string>
#include <string_view>

namespace tenon {

// One line of a file, read field by field; where() is "quiz.jsonl:12".
using JsonLine = std::function<void(const JsonReader& line)>;

// Errors: usage, naming file and line: no JSON there, or what `read` refused with code integrity (a field that is not
// what it should be). remedy: what a line should be. unit: who reads.
void read_json_lines(std::string_view text, const std::string& file, const std::string& unit, const std::string& remedy,
                     const JsonLine& read);

} // namespace tenon

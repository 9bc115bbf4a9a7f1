// JSONL: one JSON value a line, blank lines left out. Untrusted text; every complaint names the file and the line.
// Thread: a pure function of its arguments.
#pragma once

#include "registry/base/error.hpp"
#include "registry/base/json.hpp"

#include <functional>
#include <string>
#include <string_view>

namespace tenon {

// One line of a file, read field by field; where() is "quiz.jsonl:12", and number 12.
using JsonLine = std::function<void(const JsonReader& line, std::size_t number)>;

// One line of a file, that number. Errors: usage, naming both: no JSON there, or what `read` refused with code
// integrity (a field that is not what it should be). remedy: what a line should be. unit: who reads.
void read_json_line(std::string_view line, const std::string& file, std::size_t number, const std::string& unit,
                    const std::string& remedy, const JsonLine& read);

// What is wrong with line `number`, for who goes on with the next.
using BadJsonLine = std::function<void(std::size_t number, const Error& error)>;

// Every line. Errors: those of read_json_line. bad: gets them instead, line by line.
void read_json_lines(std::string_view text, const std::string& file, const std::string& unit, const std::string& remedy,
                     const JsonLine& read, const BadJsonLine& bad = {});

} // namespace tenon

// What somebody who mistyped probably meant.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace tenon {

// Edits between two words: insert, delete, replace, swap neighbours.
std::size_t edit_distance(const std::string& a, const std::string& b);
// The nearest candidate if it is near enough to be meant, else "".
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

struct Mistake {
  std::string message; // "there is no command \"rnu\""; empty if the words themselves are known
  std::string remedy;  // "did you mean: tenon run"
};

// The first word on the line that is no known command or option. words: the line without the program's name.
Mistake find_mistake(const CLI::App& root, const std::vector<std::string>& words);
// The command the line is for: its innermost known subcommand.
const CLI::App* addressed_command(const CLI::App& root, const std::vector<std::string>& words);
// "tenon model import".
std::string full_name(const CLI::App& command);

} // namespace tenon

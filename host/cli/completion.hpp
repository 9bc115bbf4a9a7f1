// Completion scripts, written from the tree of commands itself, so that they never fall behind it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace tenon {

// shell: bash, zsh or fish. Errors: usage, naming the shells there are.
std::string completion_script(const CLI::App& root, const std::string& shell);

} // namespace tenon

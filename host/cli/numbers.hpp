// What numbers an option takes. A refusal says in a few words what was found and what is needed.
// Thread: any.
#pragma once

#include <CLI/CLI.hpp>

namespace tenon {

// Whole numbers, as far as 64 bits go.
CLI::Validator from_one();
CLI::Validator from_zero();
// Any numbers.
CLI::Validator above_zero();
CLI::Validator zero_or_more();
// A size in bytes such as 512M or 1.5G (k, M, G, T: 1024, its square, ...), which becomes a whole number.
CLI::Validator size_in_bytes();

} // namespace tenon

// tenon run NAME --batch FILE: many requests at once, answers as JSON lines in the order in which they are ready.
#pragma once

#include "host/cli/generation.hpp"
#include "host/cli/opening.hpp"

#include <string>

namespace tenon {

struct BatchSettings {
  std::string file; // "-": standard input
  bool keep_going = false, no_reuse = false;
  std::uint64_t budget_bytes = 0;
  std::int64_t max_sequences = 8, prefill_chunk = 512;
};
CLI::Option* add_batch_options(CLI::App& command, BatchSettings& settings); // returns --batch

// generation: what a line does not say. Every line is checked before anything runs; with keep_going a bad one is
// answered with its error, and the others go on. Lines of standard input join as they arrive: there a bad one
// is always answered, and without keep_going it is the last that is taken. Errors: those of opening; not_found and
// usage, naming the line; interrupted, after every answer was printed as far as it had come.
void run_batch(const OpeningSettings& opening, const BatchSettings& settings, const GenerationSettings& generation,
               Context& context);

} // namespace tenon

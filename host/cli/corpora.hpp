// The texts that eval and trace are given: --data NAME=PATH[:ROLE], tokenised once and cached.
#pragma once

#include "host/cli/command.hpp"
#include "host/evaluation/evaluate.hpp"

#include <string>
#include <vector>

namespace tenon {

struct CorpusSettings {
  std::vector<std::string> data;
  std::string format = "text", field, chat_template;
};
// Returns --data, for commands that need it.
CLI::Option* add_corpus_options(CLI::App& command, CorpusSettings& settings);

// Errors: usage (a --data that cannot be read as one, a role that is no expert), not_found; those of reading.
std::vector<EvaluationCorpus> open_corpora(const CorpusSettings& settings, std::int64_t sequence_length,
                                           const Composition& composition, Context& context);

} // namespace tenon

// What tenon eval is told, and what it measures on.
#pragma once

#include "host/cli/corpora.hpp"
#include "host/cli/opening.hpp"
#include "host/evaluation/evaluate.hpp"

#include <string>
#include <vector>

namespace tenon {

struct EvalSettings {
  OpeningSettings opening;
  CorpusSettings corpora;
  std::vector<std::string> choices, versus;
  EvaluationOptions options;
  bool no_removals = false, check = false;
  std::string replay;            // a trace; "": none
  std::string report;            // where the page goes; "": nowhere
  std::vector<std::string> runs; // folders of trainings, for its curves
};

void add_eval_input_options(CLI::App& command, EvalSettings& settings);
// Corpora, questions, and experts to compare with. Errors: usage, not_found; those of loading.
EvaluationInput open_eval_input(const EvalSettings& settings, const Composition& composition, Context& context);

} // namespace tenon

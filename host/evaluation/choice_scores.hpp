// Multiple choice by log-likelihood: which of the choices the model finds likeliest, in each way of using the experts.
// Thread: one, as the composition's.
#pragma once

#include "host/evaluation/evaluate.hpp"

namespace tenon {

// Arms: base, composed, alone:NAME. The likelihood of a choice is that of the tokens from which on it differs from the
// context alone; where joining merges tokens across the seam, those are counted in every choice of the question. A tie
// goes to the first. Errors: usage (a question too long for the model), plugin, numeric, interrupted.
ChoiceScore score_choices(Composition& composition, const std::vector<VersusExpert>& versus, const ChoiceSet& set,
                          const EvaluationOptions& options);

} // namespace tenon

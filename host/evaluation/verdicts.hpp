// The rules a good composition follows, and whether this one does.
// Thread: a pure function.
#pragma once

#include "host/evaluation/scores.hpp"

#include <string>
#include <vector>

namespace tenon {

// One thing a good composition must show.
struct EvaluationVerdict {
  std::string rule, subject; // "gain", "setmm"
  bool passed = false;
  std::string found, need;
};

// gain     each expert on the base, alone, lowers its own corpus's perplexity by at least 10%, interval of the
//          difference below 0; replacing experts are reported as they are
// kept     composed keeps at least 80% of that gain in log-perplexity
// load     each expert is the strongest at 1% of its own corpus's positions or more; below, it counts as not composed
// general  composed is at most 1% worse than base on general text
// pooled   composed beats uniform and random rows
// Rules without a corpus to show them on are left out. Errors: usage, if that leaves none.
std::vector<EvaluationVerdict> judge(const Evaluation& evaluation);

} // namespace tenon

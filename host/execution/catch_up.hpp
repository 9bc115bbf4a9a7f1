// Which positions an expert must be run over, so that its outputs at the chosen ones are exact.
//
//   token      the chosen positions alone: a call of its own (gather.cpp), no state
//   window(n)  each chosen position and the n-1 before it; what lies further back in a gap is skipped for good
//   causal, recurrent   everything from where its state stands to the last chosen position
//
// Thread: pure functions.
#pragma once

#include "host/loading/facts.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace tenon {

// Positions [first, last) of one sequence.
struct Stretch {
  std::int64_t first = 0, last = 0;
  bool fresh = false; // from a state as new, as if the sequence began here; else from the state as it stands
  std::int64_t length() const { return last - first; }
};

// What an expert's state has seen of a sequence: positions [first, done).
struct Seen {
  std::int64_t first = 0, done = 0;
};

// Ascending and disjoint; only the first may go on from the state. A window restarts only where that runs fewer rows
// than going on. Requires: chosen ascending.
std::vector<Stretch> stretches(const ExpertContext& context, std::span<const std::int64_t> chosen, const Seen& seen);

} // namespace tenon

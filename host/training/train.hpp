// A whole training: from a plan to a package that can be published. One process, one expert, which knows no other.
//
// Order: everything is judged before anything costs time; the outputs of trunk and base are computed once; the row is
// fitted first; then, the row frozen, the expert is trained beside the frozen base, by steps or in one pass as its
// architecture says; held-out text is the evidence. A folder that holds a checkpoint of the same plan goes on, bit for
// bit; a pass that was stopped starts over. Thread: one.
#pragma once

#include "host/composition/loader.hpp"
#include "host/training/hooks.hpp"
#include "host/training/plan.hpp"

#include <filesystem>
#include <string>
#include <vector>

namespace tenon {

struct TrainingJob {
  std::string name; // of the expert
  TrainingPlan plan;
  std::filesystem::path folder;           // where package and run go
  std::vector<std::filesystem::path> dev; // as given to the loader
  std::int64_t halt_after = 0;            // stop, as if the user had asked, after so many steps; 0: run to the end
};

struct TrainingResult {
  std::filesystem::path folder;
  bool was_finished = false;                     // nothing was left to do
  std::int64_t steps = 0, positions = 0;         // made now; positions observed in a pass, where there were no steps
  double seconds = 0.0, tokens_per_second = 0.0; // of the steps or the pass made now
  json::object evidence;
};

// Errors: usage (text, plan, folder), not_found, incompatible, plugin, numeric, environment, interrupted, integrity
// (what must not change has changed). After any of them the folder can be gone on with, or says why not.
TrainingResult train_expert(const Loader& loader, const TrainingJob& job, const TrainingHooks& hooks);

} // namespace tenon

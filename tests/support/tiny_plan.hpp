// A small training plan for the tiny registry: a second or so of work.
#pragma once

#include "host/training/plan.hpp"
#include "tests/support/tiny_registry.hpp"

namespace tenon::test {

// Assignments as for --set; those of `first` are made before the others.
inline TrainingPlan tiny_plan(const TinyRegistry& registry, const std::string& architecture,
                              const std::vector<std::string>& assignments, const std::vector<std::string>& first = {}) {
  json::object plan = {{"architecture", architecture},
                       {"model", "tiny"},
                       {"data", {{"paths", json::array{(registry.path() / "sums").string()}}}}};
  std::vector<std::string> all = {"data.sequence_length=32", "data.held_out_blocks=12", "data.max_tokens=3000",
                                  "general.blocks=12",       "evaluate_blocks=8",       "train.steps=20",
                                  "checkpoint_every=5"};
  all.insert(all.end(), first.begin(), first.end());
  all.insert(all.end(), assignments.begin(), assignments.end());
  for (const std::string& assignment : all) set_field(plan, assignment);
  return TrainingPlan::parse(plan, "plan");
}

} // namespace tenon::test

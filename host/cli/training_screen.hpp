// What commands that make experts show: each stage as one progress line, and what held-out text says in the end.
// Thread: one.
#pragma once

#include "host/cli/progress.hpp"
#include "host/training/hooks.hpp"
#include "registry/base/json.hpp"

#include <optional>
#include <string>

namespace tenon {

class TrainingScreen {
 public:
  explicit TrainingScreen(Output& out) : out_(out) {}
  TrainingHooks hooks(); // borrow this screen

 private:
  Output& out_;
  std::optional<Progress> bar_;
  std::string detail_;
};

// evidence: as evidence_json writes it.
void show_evidence(Output& out, const std::string& name, const json::object& evidence);

} // namespace tenon

// The report: an evaluation as one self-contained page. No network, no font, no image: style, script, charts (inline
// SVG) and the evaluation's JSON all stand in the page, which reads without its script too.
//
// Names and texts of strangers are escaped, and the page's own policy lets no other script run and nothing be fetched.
// Thread: pure functions.
#pragma once

#include "host/evaluation/verdicts.hpp"
#include "host/formats/metrics.hpp"
#include "registry/base/json.hpp"

#include <string>
#include <utility>
#include <vector>

namespace tenon {

struct TrainingCurve {
  std::string name; // of the expert
  TrainingMetrics metrics;
};

// Where one part of the composition comes from.
struct LineageCard {
  std::string part, title;                                // "slot 1", "legal 1.0.0"
  std::vector<std::pair<std::string, std::string>> facts; // what, and its value; digests whole
};

struct ReportInput {
  std::string title;   // of the composition
  std::string summary; // one line on what was measured, and how
  const Evaluation& evaluation;
  const std::vector<EvaluationVerdict>* verdicts = nullptr; // borrowed
  std::vector<TrainingCurve> curves = {};
  std::vector<LineageCard> lineage = {};
  json::value data = nullptr; // put into the page as it is, for programs
};

// HTML, UTF-8.
std::string report_page(const ReportInput& input);

// "curves" as they stand in --json: [{"name", "steps": [[step, tokens, loss, "domain" | "general"]],
// "held_out": [[step, base, alone, mixture]]}].
json::array to_json(const std::vector<TrainingCurve>& curves);

} // namespace tenon

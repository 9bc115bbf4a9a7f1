// metrics.jsonl, which a training writes step by step, read back: for the curves of a report.
// Thread: values; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

struct TrainingMetrics {
  struct Step {
    std::int64_t step = 0, tokens = 0; // counted from 1; of this step
    double loss = 0;                   // nats a token; steps whose loss was not finite are left out
    bool general = false;              // on general text, where the loss is a divergence from the base
  };
  struct HeldOut {
    std::int64_t step = 0;
    double base = 0, alone = 0, mixture = 0; // perplexities
  };
  std::vector<Step> steps;
  std::vector<HeldOut> held_out;
};

// Untrusted text. A last line without its newline is still being written, and left out.
// Errors: usage, naming file and line.
TrainingMetrics parse_metrics(std::string_view text, const std::string& file);
// folder: of a training (.run/metrics.jsonl below it) or of its run. Errors: not_found; as of parse_metrics.
TrainingMetrics read_metrics(const std::filesystem::path& folder);

} // namespace tenon

// The folder of a training. Beside the package itself (expert.json, weights, row, profile), which `tenon publish`
// takes, stands .run/: plan.json, env.json, metrics.jsonl, checkpoint.safetensors, which it leaves alone. Thread: one;
// a second process on the same folder is refused.
#pragma once

#include "host/training/checkpoint.hpp"
#include "host/training/plan.hpp"
#include "host/training/trainer.hpp"
#include "registry/manifest.hpp"

#include <filesystem>
#include <optional>
#include <string>

namespace tenon {

class RunFolder {
 public:
  // Makes the folder. Errors: usage (it holds something else, or is being trained in), environment (permission).
  explicit RunFolder(const std::filesystem::path& folder);
  RunFolder(const RunFolder&) = delete;
  ~RunFolder();

  const std::filesystem::path& package() const { return folder_; }
  std::filesystem::path run() const { return folder_ / ".run"; }
  std::filesystem::path checkpoint() const { return run() / "checkpoint.safetensors"; }
  std::filesystem::path metrics() const { return run() / "metrics.jsonl"; }
  bool is_finished() const; // holds a package, with all files that it names
  // Of the finished package; empty where it has none.
  json::object evidence() const;

  // The step to go on from; nothing where none was begun. Errors: usage (a training of another plan, text or model).
  std::optional<std::int64_t> resume(const TrainingIdentity& identity) const;
  void write_plan(const json::object& plan, const TrainingIdentity& identity) const;

  // Opens metrics.jsonl for steps from `step` on; what a killed process wrote beyond it is cut off.
  void open_metrics(std::int64_t step);
  void write_metrics(const StepReport& report, double seconds, double tokens_per_second);
  void write_metrics(const json::object& line);

 private:
  ExpertManifest manifest() const;

  std::filesystem::path folder_;
  int lock_ = -1, metrics_ = -1;
};

} // namespace tenon

#include "host/training/run_folder.hpp"

#include "host/loading/platform.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

namespace tenon {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path) {
  const int problem = errno;
  throw Error(Code::environment, path.string(), std::strerror(problem),
              problem == ENOSPC ? "free some space" : "check the folder's permissions, or choose another with --out");
}

bool holds_anything(const fs::path& folder) {
  std::error_code ignored;
  return fs::directory_iterator(folder, ignored) != fs::directory_iterator();
}

json::value number_or_null(double value) { return std::isfinite(value) ? json::value(value) : json::value(nullptr); }

// Nothing for a line that a crash left damaged: the log is for people, and no training depends on it.
std::optional<std::int64_t> step_of(const std::string& line) {
  try {
    const json::value value = parse_json(line, "metrics.jsonl");
    return JsonReader(value, "metrics.jsonl").integer("step", 0);
  } catch (const Error&) {
    return std::nullopt;
  }
}

} // namespace

RunFolder::RunFolder(const fs::path& folder) : folder_(folder) {
  std::error_code problem;
  if (!fs::exists(run(), problem) && holds_anything(folder_))
    throw Error(Code::usage, folder_.string(), "is not empty, and no training began there",
                "choose another folder with --out DIR");
  fs::create_directories(run(), problem);
  if (problem)
    throw Error(Code::environment, folder_.string(), "cannot be made: " + problem.message(),
                "check the permissions of its parent, or choose another folder with --out DIR");
  lock_ = ::open((run() / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) fail(run() / "lock");
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw Error(Code::usage, folder_.string(), "another process is training there",
                "wait for it, or choose another --out DIR");
  }
  remove_temporaries_in(folder_), remove_temporaries_in(run());
}

RunFolder::~RunFolder() {
  if (metrics_ >= 0) ::close(metrics_);
  std::error_code ignored;
  if (!fs::exists(run() / "plan.json", ignored)) { // refused before it began: nothing is left behind
    fs::remove(run() / "lock", ignored);
    fs::remove(run(), ignored);
    fs::remove(folder_, ignored);
  }
  if (lock_ >= 0) ::close(lock_);
}

bool RunFolder::is_finished() const {
  std::error_code ignored;
  if (!fs::exists(folder_ / "expert.json", ignored)) return false;
  for (const auto& [path, role] : manifest().files)
    if (!fs::exists(folder_ / path, ignored)) return false;
  return true;
}

json::object RunFolder::evidence() const {
  const json::array all = manifest().evidence;
  return all.empty() ? json::object() : all.back().as_object();
}

ExpertManifest RunFolder::manifest() const {
  return ExpertManifest::parse(read_json(folder_ / "expert.json"), (folder_ / "expert.json").string());
}

std::optional<std::int64_t> RunFolder::resume(const TrainingIdentity& identity) const {
  const auto found = peek_checkpoint(checkpoint());
  if (!found) return std::nullopt;
  for (const auto& [what, digest] : identity) {
    const auto saved = found->identity.find(what);
    const std::string has = saved == found->identity.end() ? "none" : saved->second;
    if (has != digest)
      throw Error(Code::usage, folder_.string(),
                  "holds a training of another " + what + ": found " + has + ", this one is " + digest,
                  "give the same plan, text and model again, or another folder with --out DIR");
  }
  return found->step;
}

void RunFolder::write_plan(const json::object& plan, const TrainingIdentity& identity) const {
  write_file(run() / "plan.json", pretty_json(plan));
  json::object ids;
  for (const auto& [what, digest] : identity) ids[what] = digest;
  json::array features;
  for (const std::string& feature : host_cpu_features()) features.emplace_back(feature);
  write_file(run() / "env.json", pretty_json(json::object{{"platform", host_platform().text()},
                                                          {"threads", at::get_num_threads()},
                                                          {"cpu_features", features},
                                                          {"identity", ids}}));
}

void RunFolder::open_metrics(std::int64_t step) {
  std::string kept;
  std::error_code ignored;
  if (step > 0 && fs::exists(metrics(), ignored)) {
    const std::string text = read_file(metrics(), std::size_t{1} << 30);
    for (std::size_t start = 0; start < text.size();) {
      const std::size_t end = text.find('\n', start);
      if (end == std::string::npos) break; // torn
      const std::string line = text.substr(start, end - start);
      start = end + 1;
      if (const auto number = step_of(line); number && *number <= step) kept += line + "\n";
    }
  }
  write_file(metrics(), kept);
  metrics_ = ::open(metrics().c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (metrics_ < 0) fail(metrics());
}

void RunFolder::write_metrics(const StepReport& report, double seconds, double tokens_per_second) {
  json::object line = {{"step", report.step + 1},
                       {"kind", report.general ? "general" : "domain"},
                       {"loss", number_or_null(report.loss)},
                       {"learning_rate", report.learning_rate},
                       {"gradient_norm", number_or_null(report.gradient_norm)},
                       {"tokens", report.tokens},
                       {"tokens_per_second", tokens_per_second},
                       {"seconds", seconds}};
  json::array blocks;
  for (const std::uint32_t block : report.blocks) blocks.emplace_back(block);
  line["blocks"] = blocks;
  if (report.alone) line["loss_alone"] = *report.alone;
  if (report.mixture) line["loss_mixture"] = *report.mixture;
  if (report.divergence) line["kl"] = *report.divergence;
  write_metrics(line);
}

void RunFolder::write_metrics(const json::object& line) {
  const std::string text = canonical_json(line) + "\n";
  if (::write(metrics_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) fail(metrics());
}

} // namespace tenon

#include "host/training/adapter_import.hpp"

#include "host/training/material.hpp"
#include "host/training/package_folder.hpp"
#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"
#include "registry/names.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <map>

namespace tenon {
namespace {

namespace fs = std::filesystem;

// The package grows beside its place, and takes it when it is whole; dropped before, it leaves nothing behind.
class PackageInMaking {
 public:
  explicit PackageInMaking(const fs::path& place)
      : place_(place), staging_(place.parent_path() / fmt::format(".{}-{}", place.filename().string(), ::getpid())) {
    std::error_code ignored;
    if (fs::exists(place_, ignored) && (!fs::is_directory(place_, ignored) || !fs::is_empty(place_, ignored)))
      throw Error(Code::usage, place_.string(), "is there already, and not empty",
                  "choose another folder with --out DIR");
  }
  PackageInMaking(const PackageInMaking&) = delete;
  ~PackageInMaking() {
    std::error_code ignored;
    fs::remove_all(staging_, ignored);
  }

  const fs::path& folder() const { return staging_; }
  void finish() const {
    std::error_code problem;
    fs::remove(place_, problem); // empty, or not there
    fs::rename(staging_, place_, problem);
    if (problem)
      throw Error(Code::environment, place_.string(), "cannot be written: " + problem.message(),
                  "check the permissions of its parent, or choose another folder with --out DIR");
  }

 private:
  fs::path place_, staging_;
};

fs::path without_trailing_slash(const fs::path& folder) {
  const fs::path normal = fs::absolute(folder).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

// "HuggingFaceTB/SmolLM2-135M" and "smollm2" are likely the same model.
bool resembles(const std::string& one, const std::string& other) {
  const auto letters = [](const std::string& text) {
    std::string out;
    for (const char c : text.substr(text.find_last_of('/') + 1))
      if (std::isalnum(static_cast<unsigned char>(c))) out += static_cast<char>(std::tolower(c));
    return out;
  };
  const std::string a = letters(one), b = letters(other);
  return a.find(b) != std::string::npos || b.find(a) != std::string::npos;
}

// The adapter says what the expert is, and its numbers are there.
void check_plan(const TrainingPlan& plan) {
  for (const char* field : {"config", "train", "pass", "stitch", "checkpoint_every", "evaluate_every"})
    if (plan.given.contains(field))
      throw Error(Code::usage, "expert import",
                  fmt::format("found {}: the adapter says what the expert is, and nothing is trained here", field),
                  "leave it out; what can be set is in data, general, row and evaluate_blocks");
  if (plan.row.objective != RowObjective::domain)
    throw Error(Code::usage, "expert import", "found a row.objective other than domain: nothing is trained here",
                "leave row.objective out");
}

class Import {
 public:
  Import(const Loader& loader, const AdapterJob& job, const TrainingHooks& hooks)
      : loader_(loader), job_(job), hooks_(hooks), plan_(job.plan), making_(without_trailing_slash(job.folder)) {}

  AdapterImport run();

 private:
  void place();
  void take_numbers() const;
  void take(at::Tensor into, const StoredTensor& stored) const;
  void fit();
  json::object provenance() const;

  const Loader& loader_;
  const AdapterJob& job_;
  const TrainingHooks& hooks_;
  TrainingPlan plan_;
  PackageInMaking making_;
  PeftAdapter adapter_ = PeftAdapter::open(job_.adapter);
  AdapterPlacement placement_;
  Subject subject_;
  std::optional<Row> row_;
  std::optional<Profile> profile_;
  std::optional<json::object> evidence_, text_;
};

void Import::place() {
  const Entry entry = loader_.registry().resolve(PackageRequest::parse(plan_.model), Kind::model);
  const ModelManifest model = ModelManifest::parse(entry.manifest, entry.title());
  placement_ = place_adapter(adapter_, model.contract.cut, model.layers, job_.middle_only);
  plan_.config = low_rank_config(placement_, model.contract.cut.last - model.contract.cut.first);
  const std::string& made_for = adapter_.config().base_model;
  if (!made_for.empty() && !resembles(made_for, model.name))
    hooks_.say(
        fmt::format("the adapter says it was made for {}; its shapes fit {} or are refused, but whether the "
                    "weights are the same nobody can tell",
                    made_for, model.name));
  for (const std::string& module : placement_.dropped) hooks_.say("left out, outside the middle: " + module);
}

void Import::take(at::Tensor into, const StoredTensor& stored) const {
  at::NoGradGuard no_grad;
  at::Tensor numbers = at::empty(into.sizes());
  dequantise(stored, {numbers.data_ptr<float>(), stored.elements()});
  if (!numbers.isfinite().all().item<bool>())
    throw Error(Code::integrity, adapter_.name(), "the tensor " + stored.name + " holds values that are not finite",
                "take a sound copy of the adapter, or train it again");
  into.copy_(numbers);
}

void Import::take_numbers() const {
  std::map<std::string, at::Tensor> parameters;
  for (const ExpertParameter& parameter : subject_.expert->parameters())
    parameters.emplace(parameter.name, parameter.tensor);
  for (const auto& [source, target, name] : placement_.products) {
    const at::Tensor a = parameters.at(name + ".a"), b = parameters.at(name + ".b");
    const auto in = static_cast<std::int64_t>(source->a.shape[1]), out = static_cast<std::int64_t>(source->b.shape[0]);
    if (a.size(1) != in || b.size(0) != out)
      throw Error(Code::incompatible, adapter_.name(),
                  fmt::format("{}: found a change of a product from {} to {}, {} of {} goes from {} to {}",
                              source->module, in, out, target, subject_.model->manifest().name, a.size(1), b.size(0)),
                  "import the adapter for the model it was made for");
    take(a, source->a);
    take(b, source->b);
  }
}

json::object Import::provenance() const {
  json::array dropped;
  for (const std::string& module : placement_.dropped) dropped.emplace_back(module);
  json::object out = {{"imported_from",
                       {{"format", "peft"},
                        {"base_model", adapter_.config().base_model},
                        {"weights", "sha256:" + sha256_file(adapter_.name())},
                        {"left_out", dropped}}},
                      {"base", subject_.base.entry.title()},
                      {"model", subject_.model_entry.title()}};
  if (text_) out["text"] = *text_;
  return out;
}

// Row, profile and evidence, from text of the adapter's domain.
void Import::fit() {
  const Material material(loader_, plan_, subject_, hooks_);
  const CorpusSplit text = material.read_text();
  // As many blocks as the row takes positions from.
  const std::int64_t blocks = plan_.row.max_positions / (plan_.data.sequence_length - 1) + 1;
  const Streams domain = material.domain(text, blocks), held_out = material.held_out(text);
  row_ = material.first_row(domain, material.general());
  profile_ = material.profile(domain);
  const HeldOutLosses losses = measure_held_out(subject_, held_out, *row_, plan_.evaluate_blocks, hooks_);
  evidence_ = evidence_json(losses, text.held_out.digest());
  text_ = material.provenance(text);
  fs::create_directories(making_.folder() / ".run");
  copy_whole_file(text.held_out.path(), making_.folder() / ".run" / "held_out.tokens");
}

AdapterImport Import::run() {
  place();
  subject_ = open_subject(loader_, job_.dev, plan_, job_.name);
  take_numbers();
  if (!plan_.data.paths.empty()) fit();
  ExpertManifest manifest = subject_.manifest;
  if (evidence_) manifest.evidence = {*evidence_};
  manifest.provenance = provenance();
  write_package(making_.folder(), manifest, subject_, row_, profile_);
  making_.finish();
  AdapterImport out{job_.folder, adapter_.config().base_model, {}, placement_.dropped, evidence_};
  for (const auto& product : placement_.products) out.products.push_back(product.target);
  return out;
}

} // namespace

AdapterImport import_adapter(const Loader& loader, const AdapterJob& job, const TrainingHooks& hooks) {
  require_name(job.name, Kind::expert);
  check_plan(job.plan);
  return Import(loader, job, hooks).run();
}

} // namespace tenon

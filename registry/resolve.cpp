// From a request to a lock, and from a lock back to the registry.
#include "registry/lock.hpp"
#include "registry/rules.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tenon {
namespace {

Refusal refusal_of(const Error& error) { return {error.code, error.unit, error.message, error.remedy}; }

// One level, one refusal per thing that does not fit; the walk goes on, so that a user sees all of them at once.
class Resolver {
 public:
  Resolver(const Registry& registry, const Request& request, std::string_view platform)
      : registry_(registry), request_(request), platform_(platform) {}

  Resolution run() {
    require_request();
    if (!try_step([&] { take_model(); })) return finish();
    try_step([&] { take_slot(base_entry(), true); });
    for (const PackageRequest& expert : request_.experts)
      try_step([&] { take_slot(registry_.resolve(expert, Kind::expert), false); });
    lock_.router.routing = request_.routing;
    lock_.compute_dtype = request_.compute_dtype;
    return finish();
  }

 private:
  template <typename Step>
  bool try_step(Step step) {
    try {
      step();
      return true;
    } catch (const Error& error) {
      // A missing or unfitting package is a reason; a broken disk is not.
      if (error.code == Code::environment || error.code == Code::bug) throw;
      refusals_.push_back(refusal_of(error));
      return false;
    }
  }

  Resolution finish() {
    if (!refusals_.empty()) return {std::nullopt, std::move(refusals_)};
    return {std::move(lock_), {}};
  }

  void require_request() {
    for (std::size_t i = 0; i < request_.experts.size(); ++i)
      for (std::size_t j = 0; j < i; ++j)
        if (request_.experts[i].name == request_.experts[j].name)
          refusals_.push_back({Code::usage, rules::kRequest,
                               fmt::format("the expert {} is asked for twice: {} and {}", request_.experts[i].name,
                                           request_.experts[j].text(), request_.experts[i].text()),
                               "keep one of the two"});
  }

  void take_model() {
    const Entry entry = registry_.resolve(request_.model, Kind::model);
    model_ = ModelManifest::parse(entry.manifest, entry.title());
    model_title_ = entry.title();
    lock_.model = {entry.name, entry.version, entry.digest, model_.contract.model_digest};
  }

  // The base the model was cut from: the exact version it names, or the highest one with its digest.
  Entry base_entry() {
    if (model_.base_version) return registry_.version(model_.base_name, *model_.base_version).entry;
    const PublishedPackage package = registry_.show(model_.base_name);
    std::string seen;
    for (const PublishedVersion& version : package.versions) {
      if (version.yanked || package.kind != Kind::expert) continue;
      Entry entry = registry_.version(package.name, version.version).entry;
      const ExpertManifest manifest = ExpertManifest::parse(entry.manifest, entry.title());
      if (manifest.contract.base_digest == model_.contract.base_digest) return entry;
      seen = manifest.contract.base_digest;
    }
    throw Error(Code::incompatible, rules::kBase,
                fmt::format("{} needs the base {} with digest {}, the registry has {}", model_title_, model_.base_name,
                            model_.contract.base_digest, seen.empty() ? "none" : seen),
                "publish the base that was cut out with this model");
  }

  void take_slot(const Entry& entry, bool is_base) {
    if (entry.kind != Kind::expert)
      throw Error(Code::incompatible, rules::kKind,
                  fmt::format("{} is a {}, need an expert", entry.title(), kind_name(entry.kind)));
    const ExpertManifest manifest = ExpertManifest::parse(entry.manifest, entry.title());
    const auto refused = contract_refusals(entry.title(), manifest.contract, model_title_, model_.contract);
    refusals_.insert(refusals_.end(), refused.begin(), refused.end());
    if (!is_base) require_expert_row(entry, manifest);
    LockedSlot slot;
    slot.slot = static_cast<std::int64_t>(lock_.slots.size());
    slot.name = entry.name;
    slot.version = entry.version;
    slot.entry = entry.digest;
    for (const FileRecord& file : entry.files_with_role("weights")) slot.weights.push_back(file.digest);
    slot.row = manifest.row;
    slot.plugin = plugin_of(manifest);
    lock_.slots.push_back(std::move(slot));
  }

  void require_expert_row(const Entry& entry, const ExpertManifest& manifest) {
    if (entry.name == model_.base_name)
      throw Error(Code::usage, rules::kRequest,
                  fmt::format("{} is the base of {}, and in slot 0 already", entry.name, model_title_),
                  "leave it out of the experts");
    if (!manifest.row)
      throw Error(Code::incompatible, rules::kRequest,
                  fmt::format("{} has no row, and the router needs one from every expert but the base", entry.title()),
                  "train it with one, or import the adapter again with --data");
  }

  LockedPlugin plugin_of(const ExpertManifest& manifest) {
    const Entry entry = registry_.resolve(manifest.plugin, Kind::plugin, platform_);
    return {entry.name, entry.version, entry.digest, entry.platform, entry.file_with_role("library").digest};
  }

  const Registry& registry_;
  const Request& request_;
  const std::string platform_;
  ModelManifest model_;
  std::string model_title_;
  Lock lock_;
  std::vector<Refusal> refusals_;
};

// One locked package against what the registry says of it now.
class Checker {
 public:
  explicit Checker(const Registry& registry) : registry_(registry) {}

  std::optional<Entry> entry(const std::string& name, const Version& version, const std::string& digest) {
    try {
      Found found = registry_.locked(name, version, digest);
      check.warnings.insert(check.warnings.end(), found.warnings.begin(), found.warnings.end());
      return std::move(found.entry);
    } catch (const Error& error) {
      refuse(error);
      return std::nullopt;
    }
  }

  void files(const Entry& entry) {
    for (const FileRecord& file : entry.files) try {
        registry_.blob(file.digest);
      } catch (const Error& error) {
        check.refusals.push_back(
            {error.code, error.unit, fmt::format("{} {}: {}", entry.title(), file.path, error.message), error.remedy});
      }
  }

  void same(const std::string& whose, const char* what, const std::string& locked, const std::string& found) {
    if (locked == found) return;
    check.refusals.push_back({Code::incompatible, rules::kLocked,
                              fmt::format("{}: the lock says {} {}, the registry has {}", whose, what, locked, found),
                              "resolve again without --locked"});
  }

  LockCheck check;

 private:
  void refuse(const Error& error) {
    if (error.code == Code::environment || error.code == Code::bug) throw error;
    check.refusals.push_back(refusal_of(error));
  }

  const Registry& registry_;
};

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ",") + word;
  return text.empty() ? "none" : text;
}

void check_slot(Checker& checker, const LockedSlot& slot) {
  const auto expert = checker.entry(slot.name, slot.version, slot.entry);
  if (expert) {
    checker.files(*expert);
    std::vector<std::string> weights, rows;
    for (const FileRecord& file : expert->files_with_role("weights")) weights.push_back(file.digest);
    for (const FileRecord& file : expert->files_with_role("row")) rows.push_back(file.digest);
    checker.same(expert->title(), "weights", joined(slot.weights), joined(weights));
    checker.same(expert->title(), "row", slot.row.value_or("none"), joined(rows));
  }
  const LockedPlugin& locked = slot.plugin;
  if (const auto plugin = checker.entry(locked.name, locked.version, locked.entry)) {
    checker.files(*plugin);
    checker.same(plugin->title(), "platform", locked.platform, plugin->platform);
    std::vector<std::string> libraries;
    for (const FileRecord& file : plugin->files_with_role("library")) libraries.push_back(file.digest);
    checker.same(plugin->title(), "library", locked.library, joined(libraries));
  }
}

} // namespace

Lock Resolution::value() const {
  if (lock) return *lock;
  if (refusals.empty()) throw Error(Code::bug, rules::kRequest, "neither a lock nor a reason");
  Error first = refusals.front().to_error();
  std::string message = first.message;
  for (std::size_t i = 1; i < refusals.size(); ++i)
    message += fmt::format("\nalso [{}] {}", refusals[i].rule, refusals[i].message);
  throw Error(first.code, first.unit, message, first.remedy);
}

Resolution resolve(const Registry& registry, const Request& request, std::string_view platform) {
  return Resolver(registry, request, platform).run();
}

LockCheck check_locked(const Registry& registry, const Lock& lock) {
  Checker checker(registry);
  if (const auto model = checker.entry(lock.model.name, lock.model.version, lock.model.entry)) {
    checker.files(*model);
    const auto manifest = ModelManifest::parse(model->manifest, model->title());
    checker.same(model->title(), "model digest", lock.model.model_digest, manifest.contract.model_digest);
  }
  for (const LockedSlot& slot : lock.slots) check_slot(checker, slot);
  return std::move(checker.check);
}

} // namespace tenon

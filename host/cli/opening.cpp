#include "host/cli/opening.hpp"

#include "host/cli/progress.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace tenon {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> composition_names(const Home& home) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(home.compositions(), ignored))
    if (fs::exists(entry.path() / "composition.json")) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

[[noreturn]] void nothing_of_that_name(const OpeningSettings& settings, const Context& context,
                                       const Registry& registry) {
  std::vector<std::string> models;
  for (const PublishedPackage& package : registry.list().packages)
    if (package.kind == Kind::model) models.push_back(package.name);
  const auto shown = [](const std::vector<std::string>& names) { return names.empty() ? "none" : joined(names, ", "); };
  throw Error(Code::not_found, "tenon",
              fmt::format("there is no composition and no model \"{}\"; compositions: {}; models: {}", settings.name,
                          shown(composition_names(context.home)), shown(models)),
              "make one: tenon compose NAME --model MODEL EXPERT...");
}

// Hashes everything the lock names.
void verify_locked(const Registry& registry, const Lock& lock) {
  const auto whole = [&](const std::string& name, const Version& version, const std::string& digest) {
    const auto refusals = registry.verify(registry.locked(name, version, digest).entry);
    if (!refusals.empty()) throw refusals.front().to_error();
  };
  whole(lock.model.name, lock.model.version, lock.model.entry);
  for (const LockedSlot& slot : lock.slots) {
    whole(slot.name, slot.version, slot.entry);
    whole(slot.plugin.name, slot.plugin.version, slot.plugin.entry);
  }
}

// What composition.json asks for now that its lock does not hold; empty where they agree.
std::string drift(const Request& request, const Lock& lock) {
  const auto agrees = [](const PackageRequest& wanted, const std::string& name, const Version& version) {
    return wanted.name == name && wanted.range.matches(version);
  };
  if (!agrees(request.model, lock.model.name, lock.model.version))
    return fmt::format("it asks for model {}, its lock holds {} {}", request.model.text(), lock.model.name,
                       lock.model.version.text());
  if (request.experts.size() + 1 != lock.slots.size())
    return fmt::format("it asks for {} experts, its lock holds {}", request.experts.size(), lock.slots.size() - 1);
  for (std::size_t i = 0; i < request.experts.size(); ++i)
    if (const LockedSlot& slot = lock.slots[i + 1]; !agrees(request.experts[i], slot.name, slot.version))
      return fmt::format("it asks for expert {}, its lock holds {} {}", request.experts[i].text(), slot.name,
                         slot.version.text());
  if (request.routing != lock.router.routing) return "it asks for another routing than its lock holds";
  return "";
}

Lock usable_lock(const fs::path& folder, const OpeningSettings& settings, const Registry& registry, Context& context) {
  const std::string again = "make it again: tenon compose " + settings.name + " --model MODEL EXPERT...";
  if (!fs::exists(folder / "composition.lock.json"))
    throw Error(Code::not_found, settings.name, "this composition has no lock", again);
  Lock lock = read_lock(folder / "composition.lock.json");
  LockCheck check = check_locked(registry, lock);
  if (!check.refusals.empty()) {
    const Refusal& first = check.refusals.front();
    throw Error(first.code, first.rule, first.message, first.remedy.empty() ? again : first.remedy);
  }
  if (lock.slots.size() > 1 && lock.router.prior_set != lock.set_digest())
    throw Error(Code::incompatible, settings.name, "the prior in the lock was fitted for another set of experts",
                again);
  if (const std::string differs = drift(read_request(folder / "composition.json"), lock); !differs.empty())
    check.warnings.push_back(settings.name + ": " + differs);
  for (const std::string& warning : check.warnings) {
    if (settings.locked) throw Error(Code::incompatible, settings.name, warning, again);
    context.out.warn(warning);
  }
  if (settings.locked) verify_locked(registry, lock);
  return lock;
}

bool is_composition(const OpeningSettings& settings, const Context& context) {
  return settings.name.find_first_of("@/") == std::string::npos &&
         fs::exists(context.home.composition(settings.name) / "composition.json");
}

Format compute_format(const OpeningSettings& settings, const Context& context) {
  if (!settings.compute.empty()) return format_of(settings.compute);
  const fs::path lock = context.home.composition(settings.name) / "composition.lock.json";
  return is_composition(settings, context) && fs::exists(lock) ? format_of(read_lock(lock).compute_dtype)
                                                               : Format::float32;
}

// Weights become float32, then packed: a bar for each, and for each package.
class PreparationBar {
 public:
  explicit PreparationBar(Context& context) : context_(context) {}

  void update(const std::string& title, std::int64_t done, std::int64_t total) {
    if (interrupted())
      throw Error(Code::interrupted, title, "stopped while its weights were prepared",
                  "the same command goes on with the next file that is not whole");
    if (title != title_ || done < done_) bar_.reset();
    if (!bar_) bar_.emplace(context_.out, "preparing " + title, megabytes(total), "MB");
    title_ = title, done_ = done;
    bar_->update(megabytes(done));
    if (done >= total) bar_->close(), bar_.reset();
  }

 private:
  // Rounded up: a small file is no work of unknown length.
  static std::int64_t megabytes(std::int64_t bytes) { return (bytes + 999'999) / 1'000'000; }

  Context& context_;
  std::optional<Progress> bar_;
  std::string title_;
  std::int64_t done_ = 0;
};

std::unique_ptr<Composition> open_as_asked(const OpeningSettings& settings, Context& context) {
  const Loader loader = make_loader(settings, context);
  const Registry& registry = loader.registry();
  Composition::Options options;
  options.strict = settings.strict;
  options.say = [&context](const std::string& line) { context.out.warn(line); };

  if (is_composition(settings, context))
    return std::make_unique<Composition>(
        loader, usable_lock(context.home.composition(settings.name), settings, registry, context), options);

  const PackageRequest request = PackageRequest::parse(settings.name);
  const auto published = registry.find(request.name);
  if (!published || published->kind != Kind::model) nothing_of_that_name(settings, context, registry);
  const auto model = loader.model(registry.resolve(request, Kind::model));
  return std::make_unique<Composition>(model, std::vector<ExpertPackage>{loader.base(*model)}, Routing{}, 0.0, options);
}

} // namespace

void add_opening_options(CLI::App& command, OpeningSettings& settings) {
  command.add_option("name", settings.name, "A composition, or a model alone")->required();
  command.add_flag("--strict", settings.strict, "An expert at fault ends the run (exit 7) instead of being masked");
  command.add_flag("--locked", settings.locked,
                   "Refuse what differs from the lock, or was yanked; hash every byte first");
  command.add_option("--dev", settings.dev, "A plugin library from a build tree, in place of the published one")
      ->type_name("PATH");
  command
      .add_option("--compute", settings.compute,
                  "What products compute in, in place of what the lock says: float32, bf16, int8, int4, or stored (as "
                  "each weight is stored)")
      ->type_name("FORMAT");
}

Loader make_loader(Format format, const std::vector<std::string>& dev, Context& context) {
  Loader::Options options{context.home.store(), context.home.cache(), {dev.begin(), dev.end()}, format};
  options.progress = [bar = std::make_shared<PreparationBar>(context)](const std::string& title, std::uint64_t done,
                                                                       std::uint64_t total) {
    bar->update(title, static_cast<std::int64_t>(done), static_cast<std::int64_t>(total));
  };
  return Loader(Registry(context.registry()), options);
}

Loader make_loader(const OpeningSettings& settings, Context& context) {
  return make_loader(compute_format(settings, context), settings.dev, context);
}

std::unique_ptr<Composition> open_composition(const OpeningSettings& settings, Context& context) {
  std::unique_ptr<Composition> composition = open_as_asked(settings, context);
  if (settings.compute.empty() && composition->model().weights().widened())
    context.out.note(
        "computes in float32, to which the model's stored weights are widened; --compute stored takes them as they "
        "are");
  if (const PackedWeights* packed = composition->model().weights().packed())
    say_float32(composition->model().manifest().name, packed->left_float32(), context);
  for (const ExpertPackage& package : composition->packages())
    if (package.weights && package.weights->packed())
      say_float32(package.entry.title(), package.weights->packed()->multiplied_in_float32(), context);
  return composition;
}

void say_float32(const std::string& title, std::size_t matrices, Context& context) {
  if (matrices > 0)
    context.out.note(fmt::format(
        "{}: {} matrices are stored in float32 and stay so: LibTorch multiplies them, on one thread; bf16, int8 and "
        "int4 pack them",
        title, matrices));
}

} // namespace tenon

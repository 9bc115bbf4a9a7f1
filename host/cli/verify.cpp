// tenon verify: every byte of a package, or of all that a composition stands on, hashed again.
#include "host/cli/registry_view.hpp"
#include "registry/lock.hpp"

#include <fmt/format.h>

#include <functional>
#include <set>

namespace tenon {
namespace {

// Collects what was looked at; one damaged entry never hides the others.
class Verification {
 public:
  Verification(const Registry& registry, Context& context) : registry_(registry), context_(context) {}

  void package(const PublishedPackage& package) {
    for (const PublishedVersion& version : package.versions)
      for (const Build& build : version.builds) entry(package.name + " " + version.version.text(), build.entry);
  }

  void entry(const std::string& title, const std::string& digest) {
    if (!seen_.insert(digest).second) return;
    std::vector<Refusal> refusals;
    attempt(refusals, [&] { refusals = registry_.verify(registry_.entry(digest)); });
    add(title, digest, std::move(refusals));
  }

  void request(const std::string& text) {
    const ChosenPackage chosen = choose(registry_, text);
    for (const std::string& warning : chosen.warnings) context_.out.warn(warning);
    for (const Build& build : chosen.version.builds)
      entry(chosen.package.name + " " + chosen.version.version.text(), build.entry);
  }

  void composition(const std::string& name, const Lock& lock) {
    LockCheck check = check_locked(registry_, lock);
    for (const std::string& warning : check.warnings) context_.out.warn(warning);
    add("composition " + name, "", std::move(check.refusals));
    entry(lock.model.name + " " + lock.model.version.text(), lock.model.entry);
    for (const LockedSlot& slot : lock.slots) {
      entry(slot.name + " " + slot.version.text(), slot.entry);
      entry(slot.plugin.name + " " + slot.plugin.version.text(), slot.plugin.entry);
    }
  }

  void add(const std::string& title, const std::string& digest, std::vector<Refusal> refusals) {
    json::array problems;
    for (const Refusal& refusal : refusals)
      problems.push_back(
          json::object{{"rule", refusal.rule}, {"message", refusal.message}, {"remedy", refusal.remedy}});
    json::object result{{"what", title}, {"ok", refusals.empty()}, {"problems", problems}};
    if (!digest.empty()) result["entry"] = digest;
    results_.push_back(std::move(result));
    if (!context_.flags.json) {
      context_.out.line(fmt::format(
          "{}  {}",
          refusals.empty() ? context_.out.paint(Style::good, "ok     ") : context_.out.paint(Style::bad, "damaged"),
          title));
      for (const Refusal& refusal : refusals) context_.out.line("         " + refusal.message);
    }
    all_.insert(all_.end(), refusals.begin(), refusals.end());
  }

  void finish() {
    if (context_.flags.json)
      context_.out.json(
          json::object{{"registry", registry_.path().string()}, {"ok", all_.empty()}, {"results", results_}});
    if (all_.empty()) return;
    const Refusal& first = all_.front();
    throw Error(first.code, first.rule,
                fmt::format("{} problem{} found; the first: {}", all_.size(), all_.size() == 1 ? " was" : "s were",
                            first.message),
                first.remedy);
  }

 private:
  static void attempt(std::vector<Refusal>& refusals, const std::function<void()>& step) {
    try {
      step();
    } catch (const Error& error) {
      refusals.push_back({error.code, error.unit, error.message, error.remedy});
    }
  }

  const Registry& registry_;
  Context& context_;
  std::set<std::string> seen_;
  json::array results_;
  std::vector<Refusal> all_;
};

void verify(const std::vector<std::string>& names, Context& context) {
  const Registry registry = open_registry(context);
  Verification verification(registry, context);
  if (names.empty()) {
    Listing listing = registry.list();
    for (const PublishedPackage& package : listing.packages) verification.package(package);
    for (Refusal& damage : listing.damaged) verification.add(damage.rule, "", {damage});
    if (listing.packages.empty() && listing.damaged.empty())
      context.out.note(registry.path().string() + " holds no package yet");
  }
  for (const std::string& name : names) {
    std::error_code ignored;
    const bool plain_name = name.find_first_of("@/") == std::string::npos;
    const auto lock = plain_name ? context.home.composition(name) / "composition.lock.json" : std::filesystem::path();
    if (plain_name && !registry.find(name) && std::filesystem::is_regular_file(lock, ignored))
      verification.composition(name, read_lock(lock));
    else if (plain_name)
      verification.package(registry.show(name));
    else
      verification.request(name);
  }
  verification.finish();
}

} // namespace

void add_verify(CLI::App& app, Context& context) {
  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app.add_subcommand("verify", "Hash packages again, and say what differs");
  command->add_option("name", *names, "Packages (NAME: all versions; NAME@RANGE: one) or compositions; none means all");
  examples(*command, {"tenon verify", "tenon verify legal", "tenon verify legal@=1.2.0 bot --json"});
  command->callback([names, &context] { verify(*names, context); });
}

} // namespace tenon

// tenon publish: from a package folder or a plugin's library into a registry.
#include "host/cli/registry_view.hpp"
#include "host/loading/draft.hpp"
#include "host/loading/facts.hpp"

#include <fmt/format.h>

#include <optional>

namespace tenon {
namespace {

struct Settings {
  std::vector<std::filesystem::path> packages;
  bool create = false, dry_run = false;
};

Draft draft_of(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    throw Error(Code::not_found, "publish", path.string() + " is not there",
                "give the folder of a model or an expert, or the .so of a plugin");
  return std::filesystem::is_directory(path, ignored) ? package_draft(path) : plugin_draft(path);
}

std::string next_of(const Entry& entry) {
  switch (entry.kind) {
    case Kind::model:
      return fmt::format("tenon expert train NAME --model {} --arch tenon.low_rank --data TEXT", entry.name);
    case Kind::plugin:
      return fmt::format("tenon expert train NAME --model MODEL --arch {} --data TEXT",
                         Facts::parse(canonical_json(entry.manifest), entry.title()).architectures.front().name);
    case Kind::expert: break;
  }
  const std::string request = fmt::format("{}@^{}", entry.name, entry.version.text());
  return fmt::format("tenon compose bot --model MODEL {}   (or: tenon add bot {})", request, request);
}

void dry_run(const Draft& draft, Context& context) {
  context.out.line(fmt::format("would publish {} {} {} with", kind_name(draft.kind), draft.name, draft.version.text()));
  for (const PackageFile& file : draft.files) {
    std::error_code ignored;
    context.out.line(
        fmt::format("  {}  {}  {}", file.role, file.path, size_text(std::filesystem::file_size(file.source, ignored))));
  }
}

void report(const Entry& entry, const Registry& registry, Context& context) {
  std::uint64_t bytes = 0;
  for (const FileRecord& file : entry.files) bytes += file.size_bytes;
  context.out.line(fmt::format("published {} {}{} in {}: {} file{}, {}", kind_name(entry.kind), entry.title(),
                               entry.platform.empty() ? "" : " for " + entry.platform, registry.path().string(),
                               entry.files.size(), entry.files.size() == 1 ? "" : "s", size_text(bytes)));
  context.out.note("entry " + entry.digest);
}

void publish(const Settings& settings, Context& context) {
  std::vector<Draft> drafts; // all are read before the first is published
  for (const auto& path : settings.packages) drafts.push_back(draft_of(path));
  if (settings.dry_run) {
    std::error_code ignored;
    std::optional<Registry> registry; // none yet where it would be made
    if (!settings.create || std::filesystem::exists(context.registry(), ignored)) registry = open_registry(context);
    for (const Draft& draft : drafts) {
      if (registry) registry->check(draft);
      dry_run(draft, context);
    }
    return;
  }
  const Registry registry = open_registry(context, settings.create);
  json::array entries;
  std::string next;
  for (const Draft& draft : drafts) {
    const Entry entry = registry.publish(draft);
    entries.push_back(entry_json(entry));
    if (!context.flags.json) report(entry, registry, context);
    next = next_of(entry);
  }
  if (context.flags.json)
    context.out.json(json::object{{"registry", registry.path().string()}, {"published", entries}});
  context.out.next(next);
}

} // namespace

void add_publish(CLI::App& app, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command = app.add_subcommand("publish", "Publish a model, an expert or a plugin in a registry, for good");
  command->add_option("package", settings->packages, "A package's folder, or a plugin's .so; several in order")
      ->required()
      ->type_name("PATH");
  command->add_flag("--create", settings->create, "Make the registry that --registry names, where there is none");
  command->add_flag("-n,--dry-run", settings->dry_run, "Say what would be published, and publish nothing");
  examples(*command, {"tenon publish legal", "tenon publish build/acme_memory.so",
                      "tenon publish legal --registry /srv/experts --create"});
  command->callback([settings, &context] { publish(*settings, context); });
}

} // namespace tenon

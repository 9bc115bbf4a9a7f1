#include "host/cli/registry_view.hpp"

#include "registry/explain.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

constexpr std::size_t kVersionsShown = 4;

// Of the highest version's first build; a damaged entry costs its summary, not the list.
std::string summary_of(const Registry& registry, const PublishedPackage& package) {
  try {
    return registry.entry(package.versions.front().builds.front().entry).summary;
  } catch (const Error& problem) {
    return "(damaged: tenon verify " + package.name + ")";
  }
}

} // namespace

Registry open_registry(const Context& context, bool create) {
  const std::filesystem::path path = context.registry();
  const bool named = !context.registry_given.empty();
  if (named && !create) return Registry(path);
  return Registry::open_or_create(path, named ? path.filename().string() : "home");
}

ChosenPackage choose(const Registry& registry, const std::string& text) {
  const PackageRequest request = PackageRequest::parse(text);
  ChosenPackage chosen{registry.show(request.name), {}, {}, {}};
  const PublishedVersion* best = nullptr;
  for (const PublishedVersion& version : chosen.package.versions) {
    if (!request.range.matches(version.version)) continue;
    if (!best || (best->yanked && !version.yanked)) best = &version;
  }
  if (!best) throw no_version_error(chosen.package, request);
  chosen.version = *best;
  for (const Build& build : best->builds) chosen.entries.push_back(registry.entry(build.entry));
  if (best->yanked) chosen.warnings.push_back(yanked_text(request.name, *best));
  return chosen;
}

json::object entry_json(const Entry& entry) {
  json::object object = parse_json(entry.bytes(), entry.title()).get_object();
  object["entry"] = entry.digest;
  return object;
}

json::object package_json(const PublishedPackage& package) {
  json::array versions;
  for (const PublishedVersion& version : package.versions) {
    json::array builds;
    for (const Build& build : version.builds) {
      json::object object{{"entry", build.entry}, {"published", build.published}};
      if (!build.platform.empty()) object["platform"] = build.platform;
      builds.push_back(std::move(object));
    }
    json::object object{{"version", version.version.text()}, {"yanked", version.yanked}, {"builds", builds}};
    if (version.yanked) object["yank_reason"] = version.yank_reason;
    if (!version.source.empty()) object["source"] = version.source;
    versions.push_back(std::move(object));
  }
  return {{"name", package.name}, {"kind", kind_name(package.kind)}, {"versions", versions}};
}

std::string size_text(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  double value = static_cast<double>(bytes) / 1024;
  const char* unit = "KiB";
  for (const char* larger : {"MiB", "GiB", "TiB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = larger;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

std::string versions_text(const PublishedPackage& package) {
  std::vector<std::string> parts;
  for (const PublishedVersion& version : package.versions) {
    if (parts.size() == kVersionsShown) {
      parts.push_back(fmt::format("and {} more", package.versions.size() - kVersionsShown));
      break;
    }
    parts.push_back(version.version.text() + (version.yanked ? " (yanked)" : ""));
  }
  return joined(parts, ", ");
}

void show_packages(Context& context, const Registry& registry, const std::vector<PublishedPackage>& packages) {
  Table table{{"name", "kind", "versions", "summary"}, {}};
  for (const PublishedPackage& package : packages)
    table.rows.push_back(
        {package.name, kind_name(package.kind), versions_text(package), summary_of(registry, package)});
  context.out.table(table);
}

} // namespace tenon

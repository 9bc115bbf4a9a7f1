// What the registry commands share: which registry is meant, which package, and how they are shown.
// Thread: the command's own.
#pragma once

#include "host/cli/command.hpp"
#include "registry/registry.hpp"

#include <string>
#include <vector>

namespace tenon {

// --registry and TENON_REGISTRY name one that must be there (unless create); the one at home is made at its first use.
Registry open_registry(const Context& context, bool create = false);

// One version with all its builds: the highest in range that is not yanked, else the highest in range, with a warning.
struct ChosenPackage {
  PublishedPackage package;
  PublishedVersion version;
  std::vector<Entry> entries; // one per build
  std::vector<std::string> warnings;
};
// Errors: not_found, saying what there is; integrity.
ChosenPackage choose(const Registry& registry, const std::string& request);

json::object entry_json(const Entry& entry);
json::object package_json(const PublishedPackage& package);
std::string size_text(std::uint64_t bytes);                 // "17 bytes", "1.2 MiB"
std::string versions_text(const PublishedPackage& package); // "1.1.0, 1.0.0 (yanked)"
// Name, kind, versions, summary; one line a package.
void show_packages(Context& context, const Registry& registry, const std::vector<PublishedPackage>& packages);

} // namespace tenon

#include "host/cli/shipped.hpp"

#include "host/loading/draft.hpp"
#include "host/loading/platform.hpp"

#include <algorithm>

namespace tenon {
namespace {

bool has(const Registry& registry, const Draft& draft) {
  const auto package = registry.find(draft.name);
  if (!package) return false;
  for (const PublishedVersion& version : package->versions)
    for (const Build& build : version.builds)
      if (version.version == draft.version && build.platform == draft.platform) return true;
  return false;
}

} // namespace

std::size_t publish_shipped_plugins(const Registry& registry) {
  std::size_t count = 0;
  const std::filesystem::path folder = shipped_plugins();
  if (!std::filesystem::is_directory(folder)) return count;
  std::vector<std::filesystem::path> libraries;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".so") libraries.push_back(entry.path());
  std::sort(libraries.begin(), libraries.end());
  for (const std::filesystem::path& library : libraries) {
    const Draft draft = plugin_draft(library);
    if (has(registry, draft)) continue;
    registry.publish(draft);
    ++count;
  }
  return count;
}

} // namespace tenon

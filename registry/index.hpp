// One package's index: events, one JSON object a line, only ever appended.
//
// A line counts once its newline is there. Readers ignore a torn last line; append_event cuts it off. A line of a newer
// schema is skipped, so that an old reader goes on. Any other malformed line makes the package's index unreadable.
// Thread: reading, any; append_event needs the registry's lock.
#pragma once

#include "registry/registry.hpp"

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

inline constexpr std::int64_t kEventSchema = 1;
inline constexpr std::size_t kIndexLimitBytes = std::size_t{16} << 20;
inline constexpr std::size_t kEventLimitBytes = std::size_t{64} << 10;

struct Event {
  enum class What { publish, yank, unyank };
  What what = What::publish;
  Kind kind = Kind::expert;
  std::string name;
  Version version;
  std::string time;
  std::string entry, platform, source; // of publish; the last two of plugins
  std::string reason;                  // of yank
  json::value signature;               // null, or an object over these facts; kept as it is

  // Untrusted bytes. Errors: integrity.
  static Event parse(std::string_view line, const std::string& where);
  std::string line() const; // canonical JSON, without the newline
};

// Every whole line of the text. name: whose index it is; events for another package are refused.
std::vector<Event> parse_index(std::string_view text, const std::string& name);
// What the events add up to. Errors: integrity (a version published twice, a yank of nothing).
PublishedPackage fold(const std::string& name, const std::vector<Event>& events);

std::filesystem::path index_path(const std::filesystem::path& registry, const std::string& name);
// Nothing where the package has no index yet, or no whole line in it.
std::optional<PublishedPackage> read_index(const std::filesystem::path& registry, const std::string& name);
// Errors: environment; then the index is as it was.
void append_event(const std::filesystem::path& registry, const Event& event, const Registry::Observer& observer);

} // namespace tenon

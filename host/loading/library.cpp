#include "host/loading/library.hpp"

#include "host/loading/rules.hpp"
#include "registry/base/files.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/dll/shared_library.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>

namespace tenon {
namespace {

// Immortal: never destroyed, not even at exit, when autograd nodes of other static objects may still call into plugins.
struct Opened {
  std::mutex mutex;
  std::map<std::string, std::unique_ptr<Plugin>> by_digest;
  std::vector<boost::dll::shared_library> libraries;
};

Opened& opened() {
  static Opened* const all = new Opened;
  return *all;
}

// The throwing overload, so that the loader's own words reach the message.
boost::dll::shared_library open_resident(const std::filesystem::path& path) {
  using boost::dll::load_mode::type;
  const auto mode =
      static_cast<type>(boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local | RTLD_NODELETE);
  return boost::dll::shared_library(path, mode);
}

void refuse(const std::optional<Refusal>& refusal) {
  if (refusal) throw refusal->to_error();
}

// The loader's own words out of Boost's sentence around them.
std::string dlerror_text(const std::string& text) {
  constexpr std::string_view kBefore = "dlerror system message: ";
  const auto begin = text.find(kBefore), end = text.rfind("): ");
  if (begin == text.npos || end == text.npos || end < begin) return text;
  return text.substr(begin + kBefore.size(), end - begin - kBefore.size());
}

// Why the plugin does not start; empty where it does.
std::string start(const tenon_plugin& plugin, const tenon_host* host) {
  std::array<char, 1024> buffer{};
  tenon_message message{buffer.data(), buffer.size(), 0};
  const tenon_status status = plugin.init(host, &message);
  if (status == TENON_OK) return "";
  const std::string_view text(buffer.data(), std::min<std::size_t>(message.size, buffer.size()));
  return fmt::format("init failed with status {}: {}", static_cast<int>(status), text);
}

} // namespace

const tenon_expert_table* Plugin::experts(const char* id) const {
  return static_cast<const tenon_expert_table*>(table->extension(id));
}

PluginLoader::PluginLoader(HostSide host, const std::filesystem::path& store, const tenon_host* host_table)
    : host_(std::move(host)), store_(store), host_table_(host_table) {}

const Plugin& PluginLoader::load(const PluginSource& source) const {
  Candidate promised;
  promised.entry = source.entry;
  refuse(first_refusal(promised, 1, 1));
  const std::string expected = source.entry ? source.entry->file_with_role("library").digest : "";
  const LibraryStore::Stored stored = store_.admit(source.library, expected);
  const MappedFile file(stored.path);
  Candidate candidate = library_candidate(file.bytes(), source.library.filename().string(), host_);
  candidate.entry = source.entry;
  candidate.digest = stored.digest;
  refuse(first_refusal(candidate, 1, 5));
  return open(stored, std::move(candidate));
}

const Plugin& PluginLoader::open(const LibraryStore::Stored& stored, Candidate candidate) const {
  const std::lock_guard lock(opened().mutex);
  std::unique_ptr<Plugin>& slot = opened().by_digest[stored.digest];
  if (slot) return *slot;
  try {
    boost::dll::shared_library library = open_resident(stored.path);
    candidate.table = library.get<const tenon_plugin*()>("tenon_plugin_entry")();
    if (!candidate.table) candidate.open_problem = "its entry returns no table";
    opened().libraries.push_back(std::move(library));
  } catch (const boost::dll::fs::system_error& error) {
    candidate.open_problem = dlerror_text(error.what());
  }
  refuse(first_refusal(candidate, 8, 8));
  candidate.init_problem = start(*candidate.table, host_table_);
  refuse(first_refusal(candidate, 8, 8));
  slot = std::make_unique<Plugin>(Plugin{*candidate.facts, stored.digest, stored.path, candidate.table});
  return *slot;
}

std::vector<PluginLoader::Outcome> PluginLoader::load_all(std::span<const PluginSource> sources) const {
  std::vector<Outcome> out;
  for (const PluginSource& source : sources) {
    try {
      out.push_back({&load(source), std::nullopt});
    } catch (const Error& error) {
      out.push_back({nullptr, Refusal{error.code, error.unit, error.message, error.remedy}});
    }
  }
  return out;
}

} // namespace tenon

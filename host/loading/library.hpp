// Steps 1, 3, 4, 5 and 8 for a plugin: from a file to its open, initialised table. Step 6 and 9 are the caller's, with
// the same rules (first_refusal(candidate, 6, 6)), because they need a model and tensors.
//
// An opened library stays open until the process ends: autograd nodes, exceptions and deleters outlive any count of
// references. The same bytes are opened once. Thread: any; loads of one process are serialised.
#pragma once

#include "host/loading/facts.hpp"
#include "host/loading/platform.hpp"
#include "host/loading/store.hpp"
#include "registry/base/error.hpp"
#include "registry/package.hpp"

#include <tenon/plugin.h>

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace tenon {

// Immortal.
struct Plugin {
  Facts facts;
  std::string digest;         // of the library
  std::filesystem::path path; // the private copy
  const tenon_plugin* table = nullptr;

  // The tier's table, or nullptr where this plugin lacks it: "tenon.native/1".
  const tenon_expert_table* experts(const char* id = "tenon.native/1") const;
};

struct PluginSource {
  std::filesystem::path library;
  const Entry* entry = nullptr; // borrowed; nullptr for a build tree (--dev) and the plugins that come with Tenon
};

struct Candidate; // rules.hpp

class PluginLoader {
 public:
  // host_table is given to every plugin's init, and lives until the process ends.
  PluginLoader(HostSide host, const std::filesystem::path& store, const tenon_host* host_table);

  // Errors: of the refusing rule.
  const Plugin& load(const PluginSource& source) const;

  struct Outcome {
    const Plugin* plugin = nullptr; // or
    std::optional<Refusal> refusal;
  };
  // One bad plugin never fails the others.
  std::vector<Outcome> load_all(std::span<const PluginSource> sources) const;

  const HostSide& host() const { return host_; }

 private:
  const Plugin& open(const LibraryStore::Stored& stored, Candidate candidate) const;

  HostSide host_;
  LibraryStore store_;
  const tenon_host* host_table_;
};

} // namespace tenon

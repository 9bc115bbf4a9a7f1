// From registry entries to living things: a model, and experts that fit it. Every step of loading runs here, for every
// command: run, train and eval load through the same door.
// Thread: one loader per thread; what it returns is as its own type says.
#pragma once

#include "host/loading/library.hpp"
#include "host/loading/native.hpp"
#include "host/model/model.hpp"
#include "host/routing/router.hpp"
#include "registry/lock.hpp"
#include "registry/registry.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <memory>

namespace tenon {

// An expert of a registry, ready to run.
struct ExpertPackage {
  Entry entry;
  ExpertManifest manifest;
  std::shared_ptr<LoadedExpert> expert;
  std::shared_ptr<const Weights> weights; // its own; null where everything is shared
  std::optional<Row> row;                 // none for the base
};

class Loader {
 public:
  struct Options {
    std::filesystem::path store, cache;
    std::vector<std::filesystem::path> dev; // libraries from build trees, by --dev; they win over published ones
    // Of products. Any but float32: our kernels' threads compute, and LibTorch runs single-threaded from here on, for
    // its own would spin beside them.
    Format format = Format::float32;
    // Called with a package's title, and bytes done and in all, while a file is derived from its weights; may throw.
    std::function<void(const std::string& title, std::uint64_t done, std::uint64_t total)> progress = {};
  };
  Loader(const Registry& registry, Options options);

  std::shared_ptr<const Model> model(const Entry& entry) const;
  // A plugin by name: --dev first, then the registry's highest in range, then those that come with Tenon.
  const Plugin& plugin(const PackageRequest& request) const;
  const Plugin& plugin(const LockedPlugin& locked) const;

  ExpertPackage base(const Model& model) const;
  // base: what stands in slot 0, whose weights may be shared. plugin: as locked, or null to resolve it by range.
  ExpertPackage expert(const Entry& entry, const Model& model, const ExpertPackage* base,
                       const LockedPlugin* plugin = nullptr) const;
  // A new expert of this architecture and configuration (defaults filled in), unbound: for training.
  std::shared_ptr<LoadedExpert> create(const Plugin& plugin, const std::string& architecture,
                                       const json::object& config, const Model& model, const ExpertManifest* base,
                                       const std::string& title) const;

  const Registry& registry() const { return registry_; }
  const std::filesystem::path& cache() const { return options_.cache; }
  const PluginLoader& plugins() const { return plugins_; }

 private:
  std::filesystem::path path_of(const Entry& entry, const FileRecord& file) const;
  std::filesystem::path path_of(const Entry& entry, std::string_view role) const;
  std::function<void(std::uint64_t, std::uint64_t)> progress_of(const Entry& entry) const;

  Registry registry_;
  Options options_;
  PluginLoader plugins_;
};

// The operators in LibTorch's dispatcher that plugins may ask for: "tenon::linear_v1", ...
std::vector<std::string> host_operators();

Row read_row(const std::filesystem::path& path);
void write_row(const std::filesystem::path& path, const Row& row);

} // namespace tenon

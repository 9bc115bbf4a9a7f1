// What a training works on: the frozen model and base, and the new expert beside them, made and bound.
// Thread: one.
#pragma once

#include "host/composition/loader.hpp"
#include "host/training/optimizer.hpp"
#include "host/training/plan.hpp"
#include "host/training/source.hpp"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace tenon {

// The plugin with this architecture: a build tree's (--dev) first, then the registry's, then those that come with
// Tenon. request: "name@range", or empty for any. Errors: not_found, listing the architectures there are.
const Plugin& find_plugin(const Loader& loader, const std::vector<std::filesystem::path>& dev,
                          const std::string& architecture, const std::string& request);

struct Subject {
  Entry model_entry;
  std::shared_ptr<const Model> model;
  ExpertPackage base; // ready for inference
  const Plugin* plugin = nullptr;
  std::optional<Source> source; // where an imported expert's blocks come from
  ExpertManifest manifest;      // of the new expert, without weights, row and evidence
  std::shared_ptr<LoadedExpert> expert;

  bool learns_in_a_pass() const { return plugin->facts.architecture(manifest.architecture)->learns_in_a_pass; }
  // The expert's own parameters, bound to values that change.
  NamedTensors own() const;
  // Those of them that train by gradient. Errors: plugin (none).
  NamedTensors trainable() const;
  // What must not change: digests of trunk and head, and of the base, as they are in memory.
  std::string frozen_digest() const;
};

// Opens and judges everything before anything costs time. Errors: of loading; incompatible; plugin (create failed).
Subject open_subject(const Loader& loader, const std::vector<std::filesystem::path>& dev, const TrainingPlan& plan,
                     const std::string& name);

// One forward, and backward where it learns by gradient, on a few positions: what fails here would have failed after
// minutes. Errors: plugin.
void try_out(const Subject& subject, std::int64_t sequence_length, bool learns_in_a_pass = false);

} // namespace tenon

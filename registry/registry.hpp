// A registry: a plain folder with config.json, index/<name>.jsonl and blobs/sha256-<hex>.
//
// Blobs come first, the index line last: whatever is killed, a reader sees a version whole or not at all. Index lines
// are only ever appended. A line counts once its newline is there; a torn last line is ignored by readers and cut off
// by the next writer. Everything read is untrusted: bounded, checked against its schema, digests compared. Thread: any;
// the object holds no state but its path. Processes: writers take turns by a lock, readers need none.
#pragma once

#include "registry/package.hpp"

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

// One published build of a version: the only one, or one per platform for a plugin.
struct Build {
  std::string entry;    // digest of the entry
  std::string platform; // "" unless a plugin
  std::string published;
};

struct PublishedVersion {
  Version version;
  bool yanked = false;
  std::string yank_reason;
  std::string source; // digest of a plugin's source
  std::vector<Build> builds;
};

struct PublishedPackage {
  std::string name;
  Kind kind = Kind::expert;
  std::vector<PublishedVersion> versions; // highest first
};

struct Listing {
  std::vector<PublishedPackage> packages; // by name
  std::vector<Refusal> damaged;           // packages whose index could not be read; the others stand
};

// An entry found in a registry, and what its user should be told.
struct Found {
  Entry entry;
  std::vector<std::string> warnings; // "legal 1.0.0 was yanked: leaks names"
};

class Registry {
 public:
  // Called at each step of publishing, by name; what it throws ends the publishing there. For tests and progress.
  using Observer = std::function<void(std::string_view step)>;

  // A new, empty registry. Errors: usage (something is there already), environment.
  static Registry create(const std::filesystem::path& path, const std::string& name);
  static Registry open_or_create(const std::filesystem::path& path, const std::string& name);
  // Errors: not_found (no registry there), incompatible (a newer schema), integrity (config.json).
  explicit Registry(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const std::string& name() const { return name_; }

  // Returns: the entry as it now stands. Errors: usage (name, version taken), integrity (manifest), environment.
  Entry publish(const Draft& draft, const Observer& observer = {}) const;
  // What publish() would refuse, without writing anything. Errors: those of publish() but environment.
  void check(const Draft& draft) const;
  // Errors: not_found; usage (it is so already).
  void yank(const std::string& name, const Version& version, const std::string& reason) const;
  void unyank(const std::string& name, const Version& version) const;

  Listing list() const;
  std::vector<PublishedPackage> search(std::string_view words) const; // name, summary, manifest text
  std::optional<PublishedPackage> find(const std::string& name) const;
  // Errors: not_found, with near names.
  PublishedPackage show(const std::string& name) const;

  // The highest version in range that is not yanked (and, for a plugin, has a build for the platform).
  // Errors: not_found or incompatible, saying what there is instead.
  Entry resolve(const PackageRequest& request, Kind kind, std::string_view platform = "") const;
  // An exact version, yanked or not. platform: for plugins with several builds.
  Found version(const std::string& name, const Version& version, std::string_view platform = "") const;
  // What a lock names: by digest, yanked or not. Errors: not_found, integrity.
  Found locked(const std::string& name, const Version& version, const std::string& entry_digest) const;

  // The entry and each of its blobs, hashed again. Empty when all is as it says.
  std::vector<Refusal> verify(const Entry& entry) const;

  // Errors: integrity (no digest), not_found. The bytes are not hashed here: verify, or whoever copies them, does.
  std::filesystem::path blob(const std::string& digest) const;
  // An entry's bytes, hashed and checked. Errors: not_found, integrity.
  Entry entry(const std::string& digest) const;

 private:
  Registry(std::filesystem::path path, std::string name) : path_(std::move(path)), name_(std::move(name)) {}
  std::filesystem::path path_;
  std::string name_;
};

} // namespace tenon

// What is published: a draft goes in, an immutable entry stands in the registry afterwards.
//
// An entry is canonical JSON; its exact bytes are a blob, named by their digest, and a signature covers those bytes.
// A plugin has one entry per version and platform; a model and an expert have one per version.
// Thread: values; any thread.
#pragma once

#include "registry/base/error.hpp"
#include "registry/base/json.hpp"
#include "registry/names.hpp"
#include "registry/version.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

inline constexpr std::int64_t kEntrySchema = 1;
inline constexpr std::size_t kEntryLimitBytes = std::size_t{16} << 20;

// Roles in use: manifest weights row profile tokenizer calibration library facts golden card report other.
struct PackageFile {
  std::string path;             // inside the package: "weights.safetensors", "calibration/tokens.bin"
  std::filesystem::path source; // where its bytes are now
  std::string role;
};

struct Draft {
  Kind kind = Kind::expert;
  std::string name;
  Version version;
  std::string summary, license; // "" where the author says nothing
  json::object manifest;        // model.json, expert.json, or a plugin's facts
  std::vector<PackageFile> files;
  std::string platform; // plugins: the exact platform the build is for
  std::string source;   // plugins: digest of the source it was built from; builds of one version share it
};

// A model or expert from its package folder: reads model.json or expert.json, checks it, and takes each file the
// manifest lists and each with a name that has a role (role_of_path). A file with neither is refused by name, so that
// nothing is published by accident. A plugin's draft is made by whoever can read its facts (host/loading).
// Errors: not_found (no manifest), integrity (its schema), usage (an unknown file, a link).
Draft draft_from_folder(const std::filesystem::path& folder);

// "weights" for weights.safetensors, "calibration" for calibration/..., "" where the name alone says nothing.
std::string role_of_path(std::string_view path);

// A short lower-case word.
bool is_role(std::string_view role);

struct FileRecord {
  std::string path, role, digest;
  std::uint64_t size_bytes = 0;
  bool operator==(const FileRecord&) const = default;
};

struct Entry {
  Kind kind = Kind::expert;
  std::string name;
  Version version;
  std::string published; // RFC 3339, UTC: "2026-11-22T02:43:56Z"
  std::string summary, license;
  std::vector<FileRecord> files;
  json::object manifest; // as the author wrote it
  std::string platform, source;
  std::string digest; // of the entry's own bytes; not inside them

  // Untrusted bytes. Errors: integrity, with place and what was expected.
  static Entry parse(std::string_view bytes, std::string_view where);
  std::string bytes() const; // canonical JSON

  std::string title() const { return name + " " + version.text(); }
  // The file at a path, or the only file with a role. Errors: not_found, integrity (several have the role).
  const FileRecord& file(std::string_view path) const;
  const FileRecord& file_with_role(std::string_view role) const;
  std::vector<FileRecord> files_with_role(std::string_view role) const; // in path order
};

// "2026-11-22T02:43:56Z"
std::string utc_now();

} // namespace tenon

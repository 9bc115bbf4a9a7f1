// The private, content-addressed place a library is opened from: TENON_HOME/store/sha256-<hex>.so.
//
// The bytes are hashed while they are copied in, and that copy is what gets opened: nobody can swap the file between
// the check and dlopen. A new build is a new file, so the dynamic loader never returns an older one for the same path.
// Later loads compare inode, size and change time with those recorded at the copy, and hash again where they differ.
// Thread: any; several processes may share a store.
#pragma once

#include <filesystem>
#include <string>

namespace tenon {

class LibraryStore {
 public:
  // Makes the folder (0700) where it is missing. Errors: environment, also where others could write to it.
  explicit LibraryStore(std::filesystem::path folder);

  struct Stored {
    std::filesystem::path path;
    std::string digest; // "sha256:<hex>"
  };
  // expected: the digest the package's entry promises, or "" (a build tree). Errors: not_found, environment (no space,
  // permission), integrity (TN-P4: other bytes than promised). Nothing half-written is ever left under the final name.
  Stored admit(const std::filesystem::path& library, const std::string& expected = "") const;

  // Whether the stored copy still has the bytes of its name; hashes all of it.
  bool verify(const std::string& digest) const;

 private:
  std::filesystem::path path_of(const std::string& digest) const;
  bool unchanged(const std::string& digest) const;
  void record(const std::string& digest) const;
  Stored copy_in(const std::filesystem::path& library, const std::string& expected) const;

  std::filesystem::path folder_;
};

} // namespace tenon

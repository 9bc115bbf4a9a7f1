// Blobs that were hashed once on this machine: a blob's bytes are checked against its digest when it is first used,
// later uses compare inode, size and change time with those seen then, and hash again where they differ. Thread: any;
// several processes may share a folder.
#pragma once

#include <filesystem>
#include <string>

namespace tenon {

class VerifiedBlobs {
 public:
  explicit VerifiedBlobs(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // Returns: the blob's path. Errors: not_found; integrity (TN-R8: other bytes than the digest says; title names
  // whose).
  std::filesystem::path check(const std::filesystem::path& blob, const std::string& digest,
                              const std::string& title) const;

 private:
  std::filesystem::path folder_;
};

} // namespace tenon

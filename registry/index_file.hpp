// The bytes of an index file while a writer holds the registry's lock.
//
// Thread: one writer at a time; readers may look at any moment and see whole lines only.
#pragma once

#include "registry/registry.hpp"

#include <filesystem>
#include <string_view>

namespace tenon {

class IndexFile {
 public:
  // Opens, and creates where it is missing. Errors: environment.
  explicit IndexFile(std::filesystem::path path);
  IndexFile(const IndexFile&) = delete;
  ~IndexFile();

  // Cuts off a last line without its newline, left by a writer that was killed.
  void repair();
  // Writes and syncs a line. Errors: environment, and then the file is as long as before.
  void append(std::string_view line, const Registry::Observer& observer);

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  bool created_ = false;
};

} // namespace tenon

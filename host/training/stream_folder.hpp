// One folder of the stream cache: blocks of equal size, appended; the number of whole ones is written after them.
// Holds the folder's lock while it lives. Thread: one.
#pragma once

#include "registry/base/files.hpp"
#include "registry/base/json.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace tenon {

class StreamFolder {
 public:
  // parent/<digest of key>. Errors: environment. What disagrees with the key or is damaged is begun anew.
  StreamFolder(const std::filesystem::path& parent, json::object key, std::uint64_t block_bytes);
  StreamFolder(const StreamFolder&) = delete;
  ~StreamFolder();

  std::int64_t blocks() const { return blocks_; } // whole and on disk, those appended since the last sync included
  void append(std::span<const std::byte> block);
  void sync();
  // Sees to it that this folder may grow to `need_bytes`: removes others, unused longest first, until all stay below
  // the budget. Errors: usage (alone it is over the budget), environment (the disk is full).
  void make_room(std::uint64_t need_bytes, std::uint64_t budget_bytes);
  std::shared_ptr<const MappedFile> map() const;

 private:
  void read();
  void write_count() const;

  std::filesystem::path parent_, folder_;
  json::object key_;
  std::uint64_t block_bytes_;
  std::unique_ptr<FileLock> lock_;
  std::int64_t blocks_ = 0;
  int fd_ = -1;
};

} // namespace tenon

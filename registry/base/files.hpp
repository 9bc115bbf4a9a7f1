// Files as Tenon reads and writes them: mapped read-only, written whole or not at all.
// Thread: any; two writers of one path need a FileLock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tenon {

// A whole file, mapped read-only, in 2 MiB pages where the system keeps files in such (Linux 6.16 on ext4, for one).
// Movable; unmapped on destruction. An empty file maps to an empty span.
class MappedFile {
 public:
  // Errors: not_found, environment (permission), usage (a directory).
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

// Writes beside the target, fsyncs, renames over it: readers see the old file or the new one, never half of it.
// Dropped without commit(), it leaves nothing behind. Creates missing parent folders.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  AtomicFile(const AtomicFile&) = delete;
  ~AtomicFile();

  // Errors: environment (no space, permission), with the path.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  // At this place of the file, wherever write() stands; a hole left behind reads as zeros.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  void commit();

 private:
  template <class Write>
  void write_all(std::span<const std::byte> bytes, Write&& write);

  std::filesystem::path target_, temporary_;
  int fd_ = -1;
};

// Makes the system forget what it keeps of a file that was just written, in small pages: who maps it next reads it in
// large ones. Requires: committed. Errors: not_found, environment.
void drop_cached(const std::filesystem::path& path);
// Removes what killed processes left beside a target that they were writing, or in a folder beside all its files.
// Requires: nobody writes there (a lock).
void remove_temporaries_of(const std::filesystem::path& target);
void remove_temporaries_in(const std::filesystem::path& folder);

// One write of a whole small file, atomically.
void write_file(const std::filesystem::path& path, std::string_view text);
// Whole or not at all. Errors: not_found, environment.
void copy_whole_file(const std::filesystem::path& source, const std::filesystem::path& target);
// Errors: not_found, environment, integrity (larger than limit_bytes).
std::string read_file(const std::filesystem::path& path, std::size_t limit_bytes = std::size_t{64} << 20);

// An exclusive advisory lock (flock) on a file, created if missing; waits for it; released on destruction.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& path);
  // Without waiting: nullptr where somebody holds it.
  static std::unique_ptr<FileLock> try_lock(const std::filesystem::path& path);
  FileLock(const FileLock&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}

  int fd_ = -1;
};

} // namespace tenon

#include "host/loading/store.hpp"

#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/json.hpp"
#include "registry/base/sha256.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

namespace tenon {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{1} << 20;
constexpr const char* kIncoming = "incoming-";

[[noreturn]] void fail(const std::filesystem::path& path, const char* doing, int error) {
  const std::string message = fmt::format("{} {}: {}", doing, path.string(), std::strerror(error));
  if (error == ENOENT) throw Error(Code::not_found, "store", message, "check the path");
  throw Error(Code::environment, "store", message,
              error == ENOSPC || error == EDQUOT
                  ? "make room there, or set TENON_HOME to another disk"
                  : "check the permissions there, or set TENON_HOME to a folder of your own");
}

// A file descriptor, and the temporary file behind it if one is named.
struct Handle {
  int fd = -1;
  std::filesystem::path temporary;
  ~Handle() {
    if (fd >= 0) ::close(fd);
    if (!temporary.empty()) ::unlink(temporary.c_str());
  }
};

void write_all(const Handle& to, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(to.fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(to.temporary, "cannot write", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

// Copies and hashes in one pass: what was hashed is what was copied, whoever writes to the source meanwhile.
std::string copy_hashing(const Handle& from, const std::filesystem::path& source, const Handle& to) {
  Sha256 hash;
  std::vector<std::byte> block(kBlockBytes);
  for (;;) {
    const ssize_t got = ::read(from.fd, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(source, "cannot read", errno);
    if (got == 0) return "sha256:" + hash.hex();
    const std::span<const std::byte> part(block.data(), static_cast<std::size_t>(got));
    hash.update(part);
    write_all(to, part);
  }
}

// What changes when somebody touches the file: inode, size, change time (which, unlike the modification time, nobody
// can set).
std::string mark(const std::filesystem::path& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return "";
  return fmt::format("{} {} {}.{:09}", info.st_ino, info.st_size, info.st_ctim.tv_sec, info.st_ctim.tv_nsec);
}

void require_private(const std::filesystem::path& folder) {
  struct stat info {};
  if (::stat(folder.c_str(), &info) != 0) fail(folder, "cannot look at", errno);
  if (info.st_uid == ::geteuid() && (info.st_mode & (S_IWGRP | S_IWOTH)) == 0) return;
  throw Error(Code::environment, "store",
              fmt::format("found {} writable by others or owned by another user, need a folder only you can write to",
                          folder.string()),
              fmt::format("run: chmod 700 {}, or set TENON_HOME to a folder of your own", folder.string()));
}

} // namespace

LibraryStore::LibraryStore(std::filesystem::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  std::filesystem::create_directories(folder_.parent_path(), error);
  if (error) fail(folder_.parent_path(), "cannot make", error.value());
  if (::mkdir(folder_.c_str(), 0700) != 0 && errno != EEXIST) fail(folder_, "cannot make", errno);
  require_private(folder_);
}

std::filesystem::path LibraryStore::path_of(const std::string& digest) const {
  return folder_ / ("sha256-" + digest.substr(digest.find(':') + 1) + ".so");
}

bool LibraryStore::unchanged(const std::string& digest) const {
  const std::string now = mark(path_of(digest));
  if (now.empty()) return false;
  try {
    return read_file(path_of(digest).replace_extension(".mark"), 4096) == now;
  } catch (const Error&) {
    return false;
  }
}

void LibraryStore::record(const std::string& digest) const {
  write_file(path_of(digest).replace_extension(".mark"), mark(path_of(digest)));
}

bool LibraryStore::verify(const std::string& digest) const {
  return !mark(path_of(digest)).empty() && "sha256:" + sha256_file(path_of(digest)) == digest;
}

LibraryStore::Stored LibraryStore::admit(const std::filesystem::path& library, const std::string& expected) const {
  if (!expected.empty() && unchanged(expected))
    return {path_of(expected), expected}; // without a lock: nothing is written
  const FileLock lock(folder_ / ".lock");
  if (expected.empty()) return copy_in(library, expected);
  if (unchanged(expected)) return {path_of(expected), expected};
  if (verify(expected)) { // moved or restored from a backup, say
    record(expected);
    return {path_of(expected), expected};
  }
  return copy_in(library, expected);
}

LibraryStore::Stored LibraryStore::copy_in(const std::filesystem::path& library, const std::string& expected) const {
  for (const auto& left :
       std::filesystem::directory_iterator(folder_)) { // by a process that was killed; we hold the lock
    if (left.path().filename().string().starts_with(kIncoming)) std::filesystem::remove(left.path());
  }
  Handle from, to;
  from.fd = ::open(library.c_str(), O_RDONLY | O_CLOEXEC);
  if (from.fd < 0) fail(library, "cannot open", errno);
  std::string name = (folder_ / (std::string(kIncoming) + "XXXXXX")).string();
  to.fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (to.fd < 0) fail(folder_, "cannot write in", errno);
  to.temporary = name;
  const std::string digest = copy_hashing(from, library, to);
  if (!expected.empty() && digest != expected) {
    throw Error(Code::integrity, "TN-P4 digest",
                fmt::format("{}: found a library {}, its entry says {}", library.string(), digest, expected),
                "get the package again");
  }
  if (unchanged(digest)) return {path_of(digest), digest};
  if (::fchmod(to.fd, 0400) != 0 || ::fsync(to.fd) != 0) fail(to.temporary, "cannot write", errno);
  if (::rename(to.temporary.c_str(), path_of(digest).c_str()) != 0) fail(path_of(digest), "cannot write", errno);
  to.temporary.clear();
  record(digest);
  return {path_of(digest), digest};
}

} // namespace tenon

#include "registry/index_file.hpp"

#include "registry/base/error.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tenon {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* doing, int error) {
  throw Error(Code::environment, path.string(), std::string(doing) + ": " + std::strerror(error),
              "check the permissions and the free space there, then publish again");
}

off_t size_of(int fd, const std::filesystem::path& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) fail(path, "cannot be examined", errno);
  return status.st_size;
}

} // namespace

IndexFile::IndexFile(std::filesystem::path path) : path_(std::move(path)) {
  created_ = ::access(path_.c_str(), F_OK) != 0;
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd_ < 0) fail(path_, "cannot be opened for writing", errno);
}

IndexFile::~IndexFile() { ::close(fd_); }

void IndexFile::repair() {
  off_t keep = size_of(fd_, path_);
  const off_t size = keep;
  char block[4096];
  while (keep > 0) {
    const off_t begin = keep > static_cast<off_t>(sizeof block) ? keep - static_cast<off_t>(sizeof block) : 0;
    const ssize_t got = ::pread(fd_, block, static_cast<std::size_t>(keep - begin), begin);
    if (got != keep - begin) fail(path_, "cannot be read", got < 0 ? errno : EIO);
    const std::string_view text(block, static_cast<std::size_t>(got));
    const auto newline = text.rfind('\n');
    keep = newline == std::string_view::npos ? begin : begin + static_cast<off_t>(newline) + 1;
    if (newline != std::string_view::npos) break;
  }
  if (keep != size && ::ftruncate(fd_, keep) != 0) fail(path_, "its torn last line cannot be cut off", errno);
}

void IndexFile::append(std::string_view line, const Registry::Observer& observer) {
  const off_t before = size_of(fd_, path_);
  const auto undo = [&](const char* doing, int error) {
    if (::ftruncate(fd_, before) != 0) error = errno; // the torn line is then left to the next writer
    fail(path_, doing, error);
  };
  // Observed, the line goes out in two halves, so that a test can stop between them.
  const std::size_t half = observer ? line.size() / 2 : 0;
  for (std::size_t done = 0; done < line.size();) {
    const std::size_t stop = done < half ? half : line.size();
    const ssize_t wrote = ::pwrite(fd_, line.data() + done, stop - done, before + static_cast<off_t>(done));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) undo("cannot be written", errno);
    done += static_cast<std::size_t>(wrote);
    if (observer && done == half) observer("half the index line");
  }
  if (::fsync(fd_) != 0) undo("cannot be synced", errno);
  if (observer) observer("index line");
  if (!created_) return;
  const int folder = ::open(path_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return; // the line is there; only its survival of a power cut is less sure
  ::fsync(folder);
  ::close(folder);
}

} // namespace tenon

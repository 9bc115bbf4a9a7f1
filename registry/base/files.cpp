#include "registry/base/files.hpp"

#include "registry/base/error.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

namespace tenon {
namespace {

// Turns errno into an Error whose code says who has to act, and whose remedy says what to do.
[[noreturn]] void fail(const std::filesystem::path& path, const char* doing, int error) {
  const std::string message = fmt::format("{}: {}", doing, std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR: throw Error(Code::not_found, path.string(), message, "check the path");
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP: throw Error(Code::usage, path.string(), message, "give the path of a file");
    case EACCES:
    case EPERM:
    case EROFS:
      throw Error(Code::environment, path.string(), message, "give yourself permission or choose another place");
    case ENOSPC:
    case EDQUOT: throw Error(Code::environment, path.string(), message, "free some space on this disk and try again");
    default: throw Error(Code::environment, path.string(), message);
  }
}

// Closes on every way out; release() hands the descriptor on.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

void create_folder_of(const std::filesystem::path& path) {
  if (path.parent_path().empty()) return;
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  if (error) fail(path.parent_path(), "this folder cannot be created", error.value());
}

constexpr const char* kTemporary = ".tmp";

std::string begin_of_temporary(const std::filesystem::path& target) {
  return fmt::format(".{}.", target.filename().string().substr(0, 200));
}

void remove_temporaries(const std::filesystem::path& folder, const std::string& begins) {
  std::error_code ignored; // what stays takes space, and does no harm
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(begins) && name.ends_with(kTemporary)) std::filesystem::remove(entry.path(), ignored);
  }
}

// A rename is durable only once the folder that holds the name is.
void sync_folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.parent_path().empty() ? "." : path.parent_path();
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) fail(folder, "this folder cannot be opened", errno);
  // Some file systems cannot sync a folder and say EINVAL; there is nothing better to do there.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) fail(folder, "this folder cannot be synced", errno);
}

} // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) fail(path, "cannot be opened", errno);
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0) fail(path, "cannot be examined", errno);
  if (S_ISDIR(about.st_mode)) fail(path, "cannot be read", EISDIR);
  if (!S_ISREG(about.st_mode)) {
    throw Error(Code::usage, path.string(), "is not a regular file", "copy it to a file first");
  }
  if (about.st_size == 0) return;
  const auto size = static_cast<std::size_t>(about.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) fail(path, "cannot be mapped", errno);
  ::madvise(data, size, MADV_HUGEPAGE); // advice: without it the memory is slower, not wrong
  bytes_ = {static_cast<const std::byte*>(data), size};
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

AtomicFile::AtomicFile(std::filesystem::path target) : target_(std::move(target)) {
  if (target_.filename().empty()) fail(target_, "cannot be written", EISDIR);
  create_folder_of(target_);
  // Process and counter make the name unique, so two writers never share a temporary file.
  static std::atomic<unsigned> counter{0};
  temporary_ =
      target_.parent_path() / fmt::format("{}{}.{}{}", begin_of_temporary(target_), ::getpid(), counter++, kTemporary);
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0 && errno == EEXIST) { // left by a killed process whose number was used again
    ::unlink(temporary_.c_str());
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  }
  if (fd_ < 0) fail(target_, "cannot be written", errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

template <class Write>
void AtomicFile::write_all(std::span<const std::byte> bytes, Write&& write) {
  if (fd_ < 0) throw Error(Code::bug, target_.string(), "written to after it was committed");
  while (!bytes.empty()) {
    const ssize_t n = write(bytes);
    if (n >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    } else if (errno != EINTR) {
      fail(target_, "cannot be written", errno);
    }
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write_all(bytes, [&](std::span<const std::byte> rest) { return ::write(fd_, rest.data(), rest.size()); });
}

void AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  const std::byte* begin = bytes.data();
  write_all(bytes, [&](std::span<const std::byte> rest) {
    return ::pwrite(fd_, rest.data(), rest.size(), static_cast<off_t>(offset + (rest.data() - begin)));
  });
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
  if (fd_ < 0) throw Error(Code::bug, target_.string(), "committed twice");
  if (::fsync(fd_) != 0) fail(target_, "cannot be synced", errno);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail(target_, "cannot be replaced", errno);
  ::close(std::exchange(fd_, -1));
  sync_folder_of(target_);
}

void remove_temporaries_of(const std::filesystem::path& target) {
  remove_temporaries(target.parent_path(), begin_of_temporary(target));
}

void remove_temporaries_in(const std::filesystem::path& folder) { remove_temporaries(folder, "."); }

void drop_cached(const std::filesystem::path& path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) fail(path, "cannot be opened", errno);
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED); // advice
}

void copy_whole_file(const std::filesystem::path& source, const std::filesystem::path& target) {
  const MappedFile from(source);
  AtomicFile to(target);
  to.write(from.bytes());
  to.commit();
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_file(const std::filesystem::path& path, std::size_t limit_bytes) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) fail(path, "cannot be opened", errno);
  std::string text;
  char block[65536];
  for (;;) {
    const ssize_t n = ::read(fd.get(), block, sizeof block);
    if (n == 0) return text;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path, "cannot be read", errno);
    if (static_cast<std::size_t>(n) > limit_bytes - text.size()) {
      throw Error(Code::integrity, path.string(), fmt::format("is larger than the {} bytes allowed here", limit_bytes));
    }
    text.append(block, static_cast<std::size_t>(n));
  }
}

namespace {

// The lock file's descriptor; -1 where somebody else holds the lock and this is not to wait.
int locked(const std::filesystem::path& path, int how) {
  create_folder_of(path);
  Descriptor fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (fd.get() < 0) fail(path, "cannot be locked", errno);
  while (::flock(fd.get(), how) != 0) {
    if (errno == EWOULDBLOCK) return -1;
    if (errno != EINTR) fail(path, "cannot be locked", errno);
  }
  return fd.release();
}

} // namespace

FileLock::FileLock(const std::filesystem::path& path) : fd_(locked(path, LOCK_EX)) {}

std::unique_ptr<FileLock> FileLock::try_lock(const std::filesystem::path& path) {
  const int fd = locked(path, LOCK_EX | LOCK_NB);
  return fd < 0 ? nullptr : std::unique_ptr<FileLock>(new FileLock(fd));
}

FileLock::~FileLock() { ::close(fd_); } // closing releases the lock

} // namespace tenon

#include "host/training/stream_folder.hpp"

#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>

namespace tenon {
namespace {

namespace fs = std::filesystem;

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

[[noreturn]] void fail(const fs::path& path, const char* what) {
  const int problem = errno;
  throw Error(Code::environment, path.string(), fmt::format("{}: {}", what, std::strerror(problem)),
              problem == ENOSPC ? "free some space, or keep the cache elsewhere with TENON_HOME"
                                : "check the folder's permissions");
}

std::uint64_t bytes_of(const fs::path& folder) {
  std::error_code ignored;
  const auto size = fs::file_size(folder / "blocks.bin", ignored);
  return ignored ? 0 : size;
}

fs::path lock_of(const fs::path& folder) { return folder.string() + ".lock"; }

} // namespace

StreamFolder::StreamFolder(const fs::path& parent, json::object key, std::uint64_t block_bytes)
    : parent_(parent),
      folder_(parent / sha256(canonical_json(key)).substr(0, 32)),
      key_(std::move(key)),
      block_bytes_(block_bytes) {
  std::error_code problem;
  fs::create_directories(folder_, problem);
  if (problem)
    throw Error(Code::environment, folder_.string(), "cannot be made: " + problem.message(),
                "check the folder's permissions");
  lock_ = std::make_unique<FileLock>(lock_of(folder_));
  fs::create_directories(folder_, problem); // another process may have removed it while this one waited
  fd_ = ::open((folder_ / "blocks.bin").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(folder_ / "blocks.bin", "cannot be written");
  read();
}

StreamFolder::~StreamFolder() {
  if (fd_ >= 0) ::close(fd_);
}

// Only blocks that the count names are believed; what lies behind them is cut off.
void StreamFolder::read() {
  try {
    const json::value value = read_json(folder_ / "blocks.json");
    const JsonReader reader(value, "blocks.json");
    if (reader.at("key").object() == key_) blocks_ = reader.at("blocks").integer();
  } catch (const Error&) {
    blocks_ = 0;
  }
  const std::uint64_t whole = bytes_of(folder_) / block_bytes_;
  if (blocks_ < 0 || static_cast<std::uint64_t>(blocks_) > whole) blocks_ = 0;
  if (::ftruncate(fd_, static_cast<off_t>(static_cast<std::uint64_t>(blocks_) * block_bytes_)) != 0)
    fail(folder_ / "blocks.bin", "cannot be cut");
  std::error_code ignored; // marks it as used
  fs::last_write_time(folder_ / "blocks.json", fs::file_time_type::clock::now(), ignored);
}

void StreamFolder::append(std::span<const std::byte> block) {
  if (block.size() != block_bytes_) throw Error(Code::bug, "streams", "a block of another size");
  auto offset = static_cast<off_t>(static_cast<std::uint64_t>(blocks_) * block_bytes_);
  while (!block.empty()) {
    const ssize_t written = ::pwrite(fd_, block.data(), block.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(folder_ / "blocks.bin", "cannot be written");
    block = block.subspan(static_cast<std::size_t>(written));
    offset += written;
  }
  ++blocks_;
}

void StreamFolder::sync() {
  if (::fdatasync(fd_) != 0) fail(folder_ / "blocks.bin", "cannot be written");
  write_count();
}

void StreamFolder::write_count() const {
  write_file(folder_ / "blocks.json", pretty_json(json::object{{"key", key_}, {"blocks", blocks_}}));
}

void StreamFolder::make_room(std::uint64_t need_bytes, std::uint64_t budget_bytes) {
  if (need_bytes > budget_bytes)
    throw Error(
        Code::usage, "streams",
        fmt::format("the outputs of trunk and base need {:.2f} GiB of disk, the budget is {:.2f} GiB",
                    static_cast<double>(need_bytes) / kGiB, static_cast<double>(budget_bytes) / kGiB),
        "raise it with --set streams.budget_gib=..., halve the need with --set streams.dtype=bfloat16, or train "
        "on less with --set data.max_tokens=...");
  std::multimap<fs::file_time_type, fs::path> others;
  std::uint64_t used = need_bytes;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent_, ignored)) {
    if (!entry.is_directory(ignored) || entry.path() == folder_) continue;
    others.emplace(fs::last_write_time(entry.path() / "blocks.json", ignored), entry.path());
    used += bytes_of(entry.path());
  }
  for (const auto& [time, folder] : others) {
    if (used <= budget_bytes) break;
    const std::unique_ptr<FileLock> lock = FileLock::try_lock(lock_of(folder));
    if (!lock) continue; // somebody is writing it
    used -= bytes_of(folder);
    fs::remove_all(folder, ignored);
  }
  const auto space = fs::space(folder_, ignored);
  const std::uint64_t have = bytes_of(folder_), missing = need_bytes > have ? need_bytes - have : 0;
  if (!ignored && space.available < missing)
    throw Error(Code::environment, folder_.string(),
                fmt::format("the outputs of trunk and base need {:.2f} GiB more, the disk has {:.2f} GiB left",
                            static_cast<double>(missing) / kGiB, static_cast<double>(space.available) / kGiB),
                "free some space, keep the cache elsewhere with TENON_HOME, or --set streams.dtype=bfloat16");
}

std::shared_ptr<const MappedFile> StreamFolder::map() const {
  return std::make_shared<const MappedFile>(folder_ / "blocks.bin");
}

} // namespace tenon

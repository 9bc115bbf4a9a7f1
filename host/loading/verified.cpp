#include "host/loading/verified.hpp"

#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

namespace tenon {
namespace {

// What changes when somebody writes to the file. Change time, not modification time: the latter can be set back.
std::string mark(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    throw Error(Code::not_found, path.filename().string(), "this blob is not in the registry",
                "publish its package again");
  return fmt::format("{}:{} {} {}.{:09}\n", info.st_dev, info.st_ino, info.st_size, info.st_ctim.tv_sec,
                     info.st_ctim.tv_nsec);
}

bool seen(const std::filesystem::path& stamp, const std::string& now) {
  try {
    return std::filesystem::exists(stamp) && read_file(stamp, 4096) == now;
  } catch (const Error&) {
    return false;
  }
}

} // namespace

std::filesystem::path VerifiedBlobs::check(const std::filesystem::path& blob, const std::string& digest,
                                           const std::string& title) const {
  const std::filesystem::path stamp = folder_ / (digest.substr(digest.find(':') + 1) + ".mark");
  const std::string now = mark(blob);
  if (seen(stamp, now)) return blob;
  if (const std::string found = "sha256:" + sha256_file(blob); found != digest)
    throw Error(Code::integrity, "TN-R8 digest",
                fmt::format("{}: {}: expected {}, found {}", title, blob.filename().string(), digest, found),
                "restore this blob from another copy of the registry, or publish the package again");
  write_file(stamp, now);
  return blob;
}

} // namespace tenon

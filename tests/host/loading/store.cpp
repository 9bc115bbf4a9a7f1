#include "host/loading/store.hpp"

#include "registry/base/sha256.hpp"
#include "tests/registry/child.hpp"
#include "tests/registry/fixtures.hpp"

#include <sys/resource.h>
#include <catch2/catch.hpp>

#include <csignal>

using namespace tenon;
using namespace tenon::fixtures;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;

namespace {

const std::string kBytes = "the bytes of a library";
const std::string kDigest = digest_of_text(kBytes);

struct Place {
  Scratch scratch;
  fs::path library = scratch.path() / "build" / "acme.so";
  fs::path folder = scratch.path() / "home" / "store";
  Place() { write(library, kBytes); }
  std::size_t libraries() const {
    std::size_t count = 0;
    for (const auto& item : fs::directory_iterator(folder)) count += item.path().extension() == ".so";
    return count;
  }
  bool leftovers() const {
    for (const auto& item : fs::directory_iterator(folder)) {
      if (item.path().filename().string().starts_with("incoming-")) return true;
    }
    return false;
  }
};

} // namespace

TEST_CASE("the store copies a library under the digest of its bytes, for its owner alone") {
  Place place;
  const LibraryStore store(place.folder);
  const auto stored = store.admit(place.library);
  CHECK(stored.digest == kDigest);
  CHECK(stored.path.filename() == "sha256-" + kDigest.substr(7) + ".so");
  CHECK(read(stored.path) == kBytes);
  CHECK((fs::status(place.folder).permissions() & (fs::perms::group_all | fs::perms::others_all)) == fs::perms::none);
  CHECK_FALSE(place.leftovers());
}

TEST_CASE("a library changed at its path is another file in the store, and the first stays") {
  Place place;
  const LibraryStore store(place.folder);
  const auto first = store.admit(place.library);
  write(place.library, "newer bytes");
  const auto second = store.admit(place.library);
  CHECK(first.path != second.path);
  CHECK(read(first.path) == kBytes);
  CHECK(place.libraries() == 2);
}

TEST_CASE("a library with one byte flipped is refused by its digest and leaves nothing") {
  Place place;
  const LibraryStore store(place.folder);
  std::string flipped = kBytes;
  flipped[5] ^= 1;
  write(place.library, flipped);
  const Error error = error_of([&] { store.admit(place.library, kDigest); });
  CHECK(error.code == Code::integrity);
  CHECK(error.unit == "TN-P4 digest");
  CHECK_THAT(error.message, Contains(kDigest) && Contains(digest_of_text(flipped)));
  CHECK(place.libraries() == 0);
  CHECK_FALSE(place.leftovers());
}

TEST_CASE("a stored library is not read again from its source while it is untouched") {
  Place place;
  const LibraryStore store(place.folder);
  store.admit(place.library, kDigest);
  fs::remove(place.library);
  CHECK(store.admit(place.library, kDigest).digest == kDigest);
}

TEST_CASE("a store that has the library already is not locked, so that it may lie where nothing can be written") {
  Place place;
  const LibraryStore store(place.folder);
  store.admit(place.library, kDigest);
  fs::remove(place.folder / ".lock");
  CHECK(store.admit(place.library, kDigest).digest == kDigest);
  CHECK_FALSE(fs::exists(place.folder / ".lock"));
}

TEST_CASE("a stored library that somebody wrote to is found out and replaced") {
  Place place;
  const LibraryStore store(place.folder);
  const auto stored = store.admit(place.library, kDigest);
  fs::permissions(stored.path, fs::perms::owner_all);
  std::string damaged = kBytes;
  damaged[0] ^= 1;
  write(stored.path, damaged);
  CHECK_FALSE(store.verify(kDigest));
  CHECK(read(store.admit(place.library, kDigest).path) == kBytes);
  CHECK(store.verify(kDigest));
}

TEST_CASE("a stored library that somebody wrote to is found out though its time was set back") {
  Place place;
  const LibraryStore store(place.folder);
  const auto stored = store.admit(place.library, kDigest);
  const auto then = fs::last_write_time(stored.path);
  fs::permissions(stored.path, fs::perms::owner_all);
  std::string damaged = kBytes;
  damaged[0] ^= 1;
  write(stored.path, damaged);
  fs::last_write_time(stored.path, then);
  CHECK(read(store.admit(place.library, kDigest).path) == kBytes);
}

TEST_CASE("a stored library that was only moved or restored is hashed again and kept") {
  Place place;
  const LibraryStore store(place.folder);
  const auto stored = store.admit(place.library, kDigest);
  fs::copy_file(stored.path, place.folder / "copy");
  fs::rename(place.folder / "copy", stored.path);
  fs::remove(place.library);
  CHECK(store.admit(place.library, kDigest).path == stored.path);
}

TEST_CASE("what a killed process left in the store is cleared away") {
  Place place;
  const LibraryStore store(place.folder);
  write(place.folder / "incoming-abcdef", "half");
  store.admit(place.library);
  CHECK_FALSE(place.leftovers());
}

TEST_CASE("a store that others may write to is refused with the remedy") {
  Place place;
  { const LibraryStore store(place.folder); }
  fs::permissions(place.folder, fs::perms::all);
  const Error error = error_of([&] { LibraryStore again(place.folder); });
  CHECK(error.code == Code::environment);
  CHECK_THAT(error.remedy, Contains("chmod 700"));
}

TEST_CASE("a library that is not there is not found; a folder is no library") {
  Place place;
  const LibraryStore store(place.folder);
  CHECK(error_of([&] { store.admit(place.library.parent_path() / "none.so"); }).code == Code::not_found);
  CHECK(error_of([&] { store.admit(place.library.parent_path()); }).code == Code::environment);
  CHECK_FALSE(place.leftovers());
}

TEST_CASE("without permission, and without room, the environment is named and nothing is left") {
  Place place;
  fs::permissions(place.scratch.path(), fs::perms::owner_all | fs::perms::group_read | fs::perms::group_exec |
                                            fs::perms::others_read | fs::perms::others_exec);
  const int status = in_child([&] {
    constexpr uid_t kNobody = 65534;
    if (::geteuid() == 0 && (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0)) return 98;
    LibraryStore store(place.scratch.path() / "forbidden" / "store");
    return 0;
  });
  if (::geteuid() == 0) CHECK(status == status_of(Code::environment));

  const LibraryStore store(place.folder);
  write(place.library, std::string(100000, 'x'));
  CHECK(in_child([&] {
          std::signal(SIGXFSZ, SIG_IGN);
          const rlimit limit{1000, 1000};
          if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 98;
          store.admit(place.library);
          return 0;
        }) == status_of(Code::environment));
  CHECK(place.libraries() == 0);
  CHECK_FALSE(place.leftovers());
}

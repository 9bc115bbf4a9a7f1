#include "registry/base/files.hpp"

#include "registry/base/error.hpp"
#include "tests/support/scratch.hpp"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <thread>

namespace tenon {
namespace {

template <class Work>
Code code_of(Work work) {
  try {
    work();
  } catch (const Error& error) {
    return error.code;
  }
  FAIL("no error");
  return Code::bug;
}

std::size_t files_in(const std::filesystem::path& folder) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

} // namespace

TEST_CASE("a mapped file has the bytes of the file, also after a move") {
  const Scratch scratch;
  write_file(scratch.path() / "a", "hello");
  MappedFile first(scratch.path() / "a");
  MappedFile second(std::move(first));
  CHECK(first.bytes().empty());
  CHECK(std::string_view(reinterpret_cast<const char*>(second.bytes().data()), second.bytes().size()) == "hello");
}

TEST_CASE("an empty file maps to no bytes") {
  const Scratch scratch;
  write_file(scratch.path() / "empty", "");
  CHECK(MappedFile(scratch.path() / "empty").bytes().empty());
}

TEST_CASE("what cannot be mapped says why by its code") {
  const Scratch scratch;
  CHECK(code_of([&] { MappedFile(scratch.path() / "none"); }) == Code::not_found);
  CHECK(code_of([&] { MappedFile{scratch.path()}; }) == Code::usage);
  REQUIRE(mkfifo((scratch.path() / "pipe").c_str(), 0600) == 0);
  CHECK(code_of([&] { MappedFile(scratch.path() / "pipe"); }) == Code::usage);
}

TEST_CASE("a file dropped before commit leaves the old one and nothing else") {
  const Scratch scratch;
  write_file(scratch.path() / "a", "old");
  {
    AtomicFile file(scratch.path() / "a");
    file.write("half of the n");
  }
  CHECK(read_file(scratch.path() / "a") == "old");
  CHECK(files_in(scratch.path()) == 1);
}

TEST_CASE("a committed file replaces the old one and creates missing folders") {
  const Scratch scratch;
  const auto path = scratch.path() / "b" / "c" / "file";
  write_file(path, "one");
  write_file(path, "two");
  CHECK(read_file(path) == "two");
  CHECK(files_in(path.parent_path()) == 1);
}

TEST_CASE("bytes written at a place stand there, whatever was written before or after") {
  const Scratch scratch;
  AtomicFile file(scratch.path() / "a");
  file.write("head ");
  file.write_at(8, std::as_bytes(std::span("last", 4)));
  file.write_at(5, std::as_bytes(std::span("mid", 3)));
  file.commit();
  CHECK(read_file(scratch.path() / "a") == "head midlast");
}

TEST_CASE("a failed commit leaves no temporary file") {
  const Scratch scratch;
  std::filesystem::create_directories(scratch.path() / "taken" / "inside");
  CHECK(code_of([&] { write_file(scratch.path() / "taken", "x"); }) != Code::bug);
  CHECK(files_in(scratch.path()) == 1);
}

TEST_CASE("a write that the system cuts short is the environment's fault and leaves nothing") {
  const Scratch scratch;
  write_file(scratch.path() / "a", "old");
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN); // the write then fails, as on a full disk
  const rlimit small{1000, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const Code code = code_of([&] { write_file(scratch.path() / "a", std::string(100000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(code == Code::environment);
  CHECK(read_file(scratch.path() / "a") == "old");
  CHECK(files_in(scratch.path()) == 1);
}

TEST_CASE("reading stops at the limit") {
  const Scratch scratch;
  write_file(scratch.path() / "a", std::string(1000, 'x'));
  CHECK(read_file(scratch.path() / "a", 1000).size() == 1000);
  CHECK(code_of([&] { read_file(scratch.path() / "a", 999); }) == Code::integrity);
  CHECK(code_of([&] { read_file(scratch.path()); }) == Code::usage);
}

TEST_CASE("a lock lets one thread in at a time") {
  const Scratch scratch;
  int inside = 0, most = 0; // guarded by the lock under test
  const auto work = [&] {
    for (int i = 0; i < 200; ++i) {
      const FileLock lock(scratch.path() / "lock");
      most = std::max(most, ++inside);
      std::this_thread::yield();
      --inside;
    }
  };
  std::thread other(work);
  work();
  other.join();
  CHECK(most == 1);
}

TEST_CASE("without permission nothing is written and the remedy says so") {
  if (geteuid() == 0) return; // root is refused nothing here; the command's own test drops privileges
  const Scratch scratch;
  std::filesystem::permissions(scratch.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  CHECK(code_of([&] { write_file(scratch.path() / "a", "x"); }) == Code::environment);
  std::filesystem::permissions(scratch.path(), std::filesystem::perms::owner_all);
}

} // namespace tenon

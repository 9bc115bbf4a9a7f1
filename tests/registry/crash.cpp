// Publishing killed at every step, and torn at every byte: readers see a version whole or not at all.
#include "registry/index.hpp"
#include "tests/registry/child.hpp"
#include "tests/registry/fixtures.hpp"

#include <fcntl.h>
#include <catch2/catch.hpp>

using namespace tenon;
using namespace tenon::fixtures;
namespace fs = std::filesystem;

namespace {

std::vector<std::string> leftovers(const Registry& registry) {
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(registry.path() / "blobs"))
    if (item.path().filename().string().starts_with(".")) names.push_back(item.path().filename());
  return names;
}

// Publishes in a child that is killed at the given step; 0 when it came through.
int publish_until(const Registry& registry, const Draft& draft, int step) {
  return in_child([&] {
    int seen = 0;
    registry.publish(draft, [&](std::string_view) {
      if (seen++ == step) ::kill(::getpid(), SIGKILL);
    });
    return 0;
  });
}

void require_sound(const Registry& registry) {
  const Listing listing = registry.list();
  REQUIRE(listing.damaged.empty());
  REQUIRE(listing.packages.size() >= 5);
  for (const PublishedPackage& package : listing.packages)
    for (const PublishedVersion& version : package.versions)
      for (const Build& build : version.builds) REQUIRE(registry.verify(registry.entry(build.entry)).empty());
}

} // namespace

TEST_CASE("publishing killed at any step leaves the registry readable and the version publishable") {
  World world;
  const Draft fresh = draft(world.folder(), expert_manifest("fresh"));
  int step = 0, killed_before = 0, killed_after = 0;
  for (;; ++step) {
    const int status = publish_until(world.registry, fresh, step);
    require_sound(world.registry);
    const auto package = world.registry.find("fresh");
    if (status == 0) {
      REQUIRE(package);
      break;
    }
    REQUIRE(status == kKilled + SIGKILL);
    if (package) { // killed after the line was whole: the version is there, and for good
      ++killed_after;
      CHECK(error_of([&] { world.registry.publish(fresh); }).unit == "TN-R6 published");
    } else {
      ++killed_before;
      world.registry.publish(fresh);
    }
    CHECK(world.registry.show("fresh").versions.size() == 1);
    CHECK(leftovers(world.registry).empty());
    // Back to a registry without it, as far as readers and writers can tell.
    fs::remove(index_path(world.registry.path(), "fresh"));
    for (const auto& item : fs::directory_iterator(world.registry.path() / "blobs"))
      if (read(item.path()).find("fresh") != std::string::npos) fs::remove(item.path());
  }
  CHECK(killed_before >= 12); // the lock, three files in three steps each, the entry in two, half the line
  CHECK(killed_after >= 1);
}

TEST_CASE("a publisher killed beside an existing version takes nothing from it") {
  World world;
  const fs::path path = index_path(world.registry.path(), "legal");
  const std::string before = read(path);
  const Draft next = draft(world.folder(), expert_manifest("legal", "2.0.0"));
  for (const char* step : {"blob written", "entry written", "entry in place", "half the index line"}) {
    const int status = in_child([&] {
      world.registry.publish(next, [&](std::string_view reached) {
        if (reached == step) ::kill(::getpid(), SIGKILL);
      });
      return 0;
    });
    INFO(step);
    CHECK(status == kKilled + SIGKILL);
    require_sound(world.registry);
    CHECK(world.registry.show("legal").versions.size() == 2);
  }
  const std::string torn = read(path);
  CHECK(torn.starts_with(before));
  CHECK(torn.size() > before.size());
  CHECK(torn.back() != '\n');
  world.registry.publish(next);
  CHECK(world.registry.show("legal").versions[0].version.text() == "2.0.0");
  CHECK(read(path).starts_with(before));
}

TEST_CASE("an index cut off at any byte is read up to its last whole line and repaired by the next writer") {
  World world;
  const fs::path path = index_path(world.registry.path(), "legal");
  const std::string whole = read(path);
  const std::size_t first_line = whole.find('\n') + 1;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write(path, whole.substr(0, size));
    const auto package = world.registry.find("legal");
    REQUIRE((package ? package->versions.size() : 0) == (size < first_line ? 0u : 1u));
  }
  write(path, whole.substr(0, whole.size() - 1));
  world.registry.publish(draft(world.folder(), expert_manifest("legal", "1.1.0")));
  CHECK(world.registry.show("legal").versions.size() == 2);
  CHECK(read(path).starts_with(whole.substr(0, first_line)));
  CHECK(parse_index(read(path), "legal").size() == 2);
}

TEST_CASE("a registry whose creation was stopped is created by the next try") {
  Scratch scratch;
  fs::create_directories(scratch.path() / "r/blobs");
  CHECK(error_of([&] { Registry{scratch.path() / "r"}; }).code == Code::not_found);
  CHECK(Registry::open_or_create(scratch.path() / "r", "x").list().packages.empty());
}

TEST_CASE("publishers at once lose nothing, and readers beside them see whole versions only") {
  World world;
  constexpr int kWriters = 4, kVersions = 5;
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t reader = start_child([&] {
    ::close(ready[1]);
    char byte;
    ssize_t got = 0;
    ::fcntl(ready[0], F_SETFL, O_NONBLOCK);
    do { // until every writer has closed its end
      const Listing listing = world.registry.list();
      if (!listing.damaged.empty()) return 1;
      for (const auto& package : listing.packages)
        if (!world.registry.verify(world.registry.entry(package.versions[0].builds[0].entry)).empty()) return 2;
      got = ::read(ready[0], &byte, 1);
    } while (got != 0);
    return 0;
  });
  std::vector<pid_t> writers;
  for (int w = 0; w < kWriters; ++w)
    writers.push_back(start_child([&, w] {
      for (int v = 0; v < kVersions; ++v) {
        const std::string version = std::to_string(w + 2) + "." + std::to_string(v) + ".0";
        const auto folder = world.scratch.path() / ("w" + version);
        world.registry.publish(draft(folder, expert_manifest("legal", version)));
      }
      return 0;
    }));
  ::close(ready[0]);
  ::close(ready[1]);
  for (const pid_t writer : writers) CHECK(wait_for(writer) == 0);
  CHECK(wait_for(reader) == 0);
  CHECK(world.registry.show("legal").versions.size() == 2 + kWriters * kVersions);
  require_sound(world.registry);
}

TEST_CASE("of publishers of one version, one wins and the others are told") {
  World world;
  const Draft fresh = draft(world.folder(), expert_manifest("fresh"));
  std::vector<pid_t> writers;
  for (int w = 0; w < 4; ++w)
    writers.push_back(start_child([&] {
      world.registry.publish(fresh);
      return 0;
    }));
  int won = 0, told = 0;
  for (const pid_t writer : writers) {
    const int status = wait_for(writer);
    won += status == 0;
    told += status == status_of(Code::usage);
  }
  CHECK(won == 1);
  CHECK(told == 3);
  require_sound(world.registry);
}

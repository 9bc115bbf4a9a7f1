// No permission, no space: the culprit is named and nothing is half-written.
#include "registry/index.hpp"
#include "tests/registry/child.hpp"
#include "tests/registry/fixtures.hpp"

#include <sys/mount.h>
#include <sys/resource.h>
#include <catch2/catch.hpp>

#include <sched.h>
#include <csignal>
#include <map>

using namespace tenon;
using namespace tenon::fixtures;
namespace fs = std::filesystem;

namespace {

constexpr uid_t kNobody = 65534;

// As anybody without rights; tests usually run as root, whom no permission stops.
int unprivileged(const std::function<int()>& work) {
  return in_child([&] {
    if (::geteuid() == 0 && (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0)) return 98;
    return work();
  });
}

std::map<std::string, std::string> bytes_below(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& item : fs::recursive_directory_iterator(folder))
    if (item.is_regular_file()) files[item.path().string()] = read(item.path());
  return files;
}

void allow(const fs::path& path, unsigned mode) { fs::permissions(path, static_cast<fs::perms>(mode)); }

// Lets everybody look around, and nobody but the owner write.
void open_to_readers(const World& world) {
  allow(world.scratch.path(), 0755);
  for (const auto& item : fs::recursive_directory_iterator(world.scratch.path()))
    allow(item.path(), item.is_directory() ? 0555 : 0444);
}

} // namespace

TEST_CASE("a registry that may not be written is refused as the environment's fault and left as it was") {
  World world;
  const Draft fresh = draft(world.folder(), expert_manifest("fresh"));
  const fs::path root = world.registry.path();
  open_to_readers(world);
  const auto before = bytes_below(root);
  const auto publish = [&] {
    world.registry.publish(fresh);
    return 0;
  };
  CHECK(unprivileged(publish) == status_of(Code::environment)); // not even the lock
  allow(root / ".lock", 0666);
  CHECK(unprivileged(publish) == status_of(Code::environment)); // no blob
  CHECK(bytes_below(root) == before);
  allow(root / "blobs", 0777);
  CHECK(unprivileged(publish) == status_of(Code::environment)); // blobs, but no index
  CHECK_FALSE(world.registry.find("fresh"));
  CHECK(unprivileged([&] {
          world.registry.yank("legal", Version::parse("1.0.0"), "");
          return 0;
        }) == status_of(Code::environment));
  CHECK_FALSE(world.registry.show("legal").versions[1].yanked);
  CHECK(unprivileged([&] {
          return Registry(root).list().packages.size() == 5 &&
                         Registry(root).resolve(PackageRequest::parse("legal"), Kind::expert).version.text() == "1.1.0"
                     ? 0
                     : 1;
        }) == 0); // reading needs no right to write
  allow(root / "index", 0777);
  CHECK(unprivileged(publish) == 0);
  allow(root, 0755);
}

TEST_CASE("a registry that may not be read is the environment's fault, not a missing registry") {
  World world;
  allow(world.scratch.path(), 0755);
  allow(world.registry.path(), 0000);
  const int status = unprivileged([&] {
    Registry registry(world.registry.path());
    return 0;
  });
  allow(world.registry.path(), 0755);
  CHECK(status == status_of(Code::environment));
}

TEST_CASE("a package file that may not be read stops publishing before anything is written") {
  World world;
  const Draft fresh = draft(world.folder(), expert_manifest("fresh"));
  allow(world.scratch.path(), 0755);
  for (const auto& item : fs::recursive_directory_iterator(world.registry.path()))
    allow(item.path(), item.is_directory() ? 0777 : 0666);
  allow(fresh.files[0].source, 0000);
  const auto before = bytes_below(world.registry.path());
  const int status = unprivileged([&] {
    world.registry.publish(fresh);
    return 0;
  });
  allow(fresh.files[0].source, 0644);
  CHECK(status == status_of(Code::environment));
  CHECK(bytes_below(world.registry.path()) == before);
}

namespace {

// The most a file may grow to in the child, as a full disk would have it: writes beyond fail half-way.
int with_file_limit(rlim_t bytes, const std::function<int()>& work) {
  return in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, bytes};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 98;
    return work();
  });
}

} // namespace

TEST_CASE("a blob that cannot be written to its end leaves nothing behind") {
  World world;
  Draft fresh = draft(world.folder(), expert_manifest("fresh"));
  write(fresh.files.back().source, std::string(300000, 'w'));
  const auto before = bytes_below(world.registry.path());
  CHECK(with_file_limit(4096, [&] {
          world.registry.publish(fresh);
          return 0;
        }) == status_of(Code::environment));
  for (const auto& [path, bytes] : bytes_below(world.registry.path()))
    CHECK((before.count(path) == 1 || bytes.size() <= 4096)); // smaller blobs may stay: nobody refers to them
  CHECK_FALSE(world.registry.find("fresh"));
  world.registry.publish(fresh);
  CHECK(world.registry.find("fresh"));
}

TEST_CASE("an index line that cannot be written to its end is taken back") {
  World world;
  const fs::path path = index_path(world.registry.path(), "legal");
  // Grow the index beyond every blob, so that the limit cuts the line and nothing before it.
  for (int i = 0; i < 20; ++i) {
    world.registry.yank("legal", Version::parse("1.0.0"), std::string(200, 'x'));
    world.registry.unyank("legal", Version::parse("1.0.0"));
  }
  const std::string before = read(path);
  const Draft next = draft(world.folder(), expert_manifest("legal", "2.0.0"));
  for (const rlim_t room : {0, 1, 50}) {
    CHECK(with_file_limit(before.size() + room, [&] {
            world.registry.publish(next);
            return 0;
          }) == status_of(Code::environment));
    CHECK(read(path) == before);
  }
  world.registry.publish(next);
  CHECK(world.registry.show("legal").versions[0].version.text() == "2.0.0");
}

TEST_CASE("a disk without space is refused and the registry on it stays sound") {
  Scratch scratch;
  const Draft fresh = [&] {
    Draft made = draft(scratch.path() / "package", expert_manifest("fresh"));
    write(made.files.back().source, std::string(400000, 'w'));
    return made;
  }();
  const fs::path disk = scratch.path() / "disk";
  fs::create_directory(disk);
  const int status = in_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 77;
    if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=128k") != 0) return 77;
    const Registry registry = Registry::create(disk / "r", "small");
    if (error_of([&] { registry.publish(fresh); }).code != Code::environment) return 1;
    if (registry.find("fresh") || !registry.list().damaged.empty()) return 2;
    for (const auto& item : fs::directory_iterator(disk / "r/blobs"))
      if (item.path().filename().string().starts_with(".")) return 3;
    write(fresh.files.back().source, "small enough");
    registry.publish(fresh);
    return registry.verify(registry.resolve(PackageRequest::parse("fresh"), Kind::expert)).empty() ? 0 : 4;
  });
  if (status == 77)
    WARN("this machine allows no small disk to be mounted; file limits stood in for it");
  else
    CHECK(status == 0);
}

// What a registry says when its bytes are not what they were.
#include "registry/index.hpp"
#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

using namespace tenon;
using namespace tenon::fixtures;
namespace fs = std::filesystem;

namespace {

void flip_byte(const fs::path& path, std::size_t at) {
  std::string bytes = read(path);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  fs::permissions(path, fs::perms::owner_write, fs::perm_options::add);
  write(path, bytes);
}

Entry legal(World& world) { return world.registry.resolve(PackageRequest::parse("legal"), Kind::expert); }

} // namespace

TEST_CASE("verify names the blob, what was expected and what was found") {
  World world;
  const Entry entry = legal(world);
  const std::string weights = entry.file("weights.safetensors").digest;
  flip_byte(world.registry.blob(weights), 3);
  const auto refusals = world.registry.verify(entry);
  REQUIRE(refusals.size() == 1);
  CHECK(refusals[0].code == Code::integrity);
  CHECK(refusals[0].rule == "TN-R8 digest");
  CHECK(refusals[0].message.find("weights.safetensors") != std::string::npos);
  CHECK(refusals[0].message.find(weights) != std::string::npos);
  CHECK(refusals[0].message.find(digest_of_text(read(world.registry.blob(weights)))) != std::string::npos);
}

TEST_CASE("verify finds a blob that is missing or cut short") {
  World world;
  const Entry entry = legal(world);
  fs::remove(world.registry.blob(entry.file("row.safetensors").digest));
  fs::resize_file(world.registry.blob(entry.file("weights.safetensors").digest), 4);
  const auto refusals = world.registry.verify(entry);
  REQUIRE(refusals.size() == 2);
  CHECK(refusals[0].code == Code::not_found);
  CHECK(refusals[1].message.find("expected 22 bytes, found 4 bytes") != std::string::npos);
}

TEST_CASE("a flipped byte anywhere in an entry is noticed before it is believed") {
  World world;
  const Entry entry = legal(world);
  const fs::path path = world.registry.blob(entry.digest);
  const std::size_t size = read(path).size();
  for (std::size_t at = 0; at < size; at += 7) {
    flip_byte(path, at);
    CHECK(error_of([&] { legal(world); }).code == Code::integrity);
    flip_byte(path, at);
  }
  CHECK(legal(world).digest == entry.digest);
}

TEST_CASE("publishing again heals a damaged blob of the same content") {
  World world;
  const Entry entry = legal(world);
  const fs::path row = world.registry.blob(entry.file("row.safetensors").digest);
  flip_byte(row, 0);
  world.registry.publish(draft(world.folder(), expert_manifest("legal", "1.2.0"))); // shares the row
  CHECK(world.registry.verify(entry).empty());
}

TEST_CASE("an index line whose entry is another package's is refused") {
  World world;
  const fs::path legal_index = index_path(world.registry.path(), "legal");
  const std::string hr = world.registry.show("hr").versions[0].builds[0].entry;
  const std::string own = world.registry.show("legal").versions[0].builds[0].entry;
  std::string text = read(legal_index);
  text.replace(text.find(own), own.size(), hr);
  write(legal_index, text);
  const Error error = error_of([&] { legal(world); });
  CHECK(error.code == Code::integrity);
  CHECK(error.message.find("hr 1.0.0") != std::string::npos);
}

TEST_CASE("an index line whose entry is the build for another platform is refused") {
  World world;
  world.registry.publish(plugin_draft(world.folder(), "acme.mlp", "1.2.0", "aarch64-linux"));
  const fs::path index = index_path(world.registry.path(), "acme.mlp");
  const auto builds = world.registry.show("acme.mlp").versions[0].builds;
  std::string text = read(index);
  text.replace(text.find(builds[0].entry), builds[0].entry.size(), builds[1].entry);
  write(index, text);
  const auto resolve = [&] {
    world.registry.resolve(PackageRequest::parse("acme.mlp"), Kind::plugin, builds[0].platform);
  };
  CHECK(error_of(resolve).code == Code::integrity);
}

TEST_CASE("an index line that names another source than its entry is refused") {
  World world;
  const fs::path index = index_path(world.registry.path(), "acme.mlp");
  const std::string source = world.registry.show("acme.mlp").versions[0].source;
  std::string text = read(index), other = source;
  other.back() = other.back() == '0' ? '1' : '0';
  for (std::size_t at = text.find(source); at != std::string::npos; at = text.find(source, at + 1))
    text.replace(at, source.size(), other);
  write(index, text);
  const auto resolve = [&] {
    world.registry.resolve(PackageRequest::parse("acme.mlp"), Kind::plugin,
                           world.registry.show("acme.mlp").versions[0].builds[0].platform);
  };
  CHECK(error_of(resolve).code == Code::integrity);
}

TEST_CASE("one damaged index never hides the other packages") {
  World world;
  write(index_path(world.registry.path(), "legal"), "not json\n");
  const Listing listing = world.registry.list();
  CHECK(listing.packages.size() == 4);
  REQUIRE(listing.damaged.size() == 1);
  CHECK(listing.damaged[0].rule.find("legal.jsonl") != std::string::npos);
  CHECK(listing.damaged[0].code == Code::integrity);
}

TEST_CASE("index lines that contradict each other are refused") {
  World world;
  const std::string good = read(index_path(world.registry.path(), "legal"));
  const std::string plugin = read(index_path(world.registry.path(), "acme.mlp"));
  const auto refuse = [&](const std::string& text, const char* name) {
    CHECK(error_of([&] { fold(name, parse_index(text, name)); }).code == Code::integrity);
  };
  refuse(good + good, "legal");
  refuse(good, "hr");
  refuse(plugin + plugin, "acme.mlp");
  Event yank = Event::parse(good.substr(0, good.find('\n')), "test");
  yank.what = Event::What::yank;
  yank.version = Version::parse("7.0.0");
  refuse(good + yank.line() + "\n", "legal");
  yank.kind = Kind::model;
  refuse(good + yank.line() + "\n", "legal");
}

TEST_CASE("index lines of a newer schema are left to newer readers, and signatures are kept") {
  World world;
  const std::string good = read(index_path(world.registry.path(), "legal"));
  const auto events = parse_index(R"({"schema":2,"event":"transfer","anything":[]})"
                                  "\n" +
                                      good,
                                  "legal");
  CHECK(events.size() == 2);
  Event signed_event = events[0];
  signed_event.signature = json::object{{"key", "K"}, {"value", "S"}};
  CHECK(Event::parse(signed_event.line(), "test").signature == signed_event.signature);
}

TEST_CASE("a blob's digest cannot lead out of the registry") {
  World world;
  for (const char* bad : {"sha256:../../../etc/passwd", "", "../config.json", "sha256:", "/etc/passwd"})
    CHECK(error_of([&] { world.registry.blob(bad); }).code == Code::integrity);
  CHECK(error_of([&] { world.registry.blob(digest("nothing")); }).code == Code::not_found);
  CHECK_FALSE(world.registry.find("../config"));
}

TEST_CASE("files in the index folder that are nobody's index are left alone") {
  World world;
  write(world.registry.path() / "index/README", "x");
  write(world.registry.path() / "index/Upper.jsonl", "x\n");
  write(world.registry.path() / "index/empty.jsonl", "");
  fs::create_directory(world.registry.path() / "index/folder.jsonl");
  const Listing listing = world.registry.list();
  CHECK(listing.packages.size() == 5);
  CHECK(listing.damaged.size() == 1); // the folder that stands where an index would
  CHECK_FALSE(world.registry.find("empty"));
}

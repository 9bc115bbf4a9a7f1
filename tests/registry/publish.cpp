#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

using namespace tenon;
using namespace tenon::fixtures;
namespace fs = std::filesystem;

TEST_CASE("registry gives back what was published, byte for byte") {
  World world;
  const Entry entry = world.registry.resolve(PackageRequest::parse("legal@=1.0.0"), Kind::expert);
  CHECK(entry.title() == "legal 1.0.0");
  CHECK(entry.summary == "Knows legal");
  CHECK(read(world.registry.blob(entry.file("weights.safetensors").digest)) == "weights of legal 1.0.0");
  CHECK(entry.file_with_role("row").path == "row.safetensors");
  CHECK(json::value(entry.manifest) == json::value(expert_manifest("legal").to_json()));
  CHECK(digest_of_text(read(world.registry.blob(entry.digest))) == entry.digest);
  CHECK(world.registry.verify(entry).empty());
}

TEST_CASE("registry lists packages by name and versions from the highest") {
  World world;
  const Listing listing = world.registry.list();
  CHECK(listing.damaged.empty());
  std::vector<std::string> names;
  for (const auto& package : listing.packages) names.push_back(package.name);
  CHECK(names == std::vector<std::string>{"acme.mlp", "hr", "legal", "tiny", "tiny-base"});
  const PublishedPackage legal = world.registry.show("legal");
  REQUIRE(legal.versions.size() == 2);
  CHECK(legal.versions[0].version.text() == "1.1.0");
  CHECK(legal.kind == Kind::expert);
}

TEST_CASE("registry searches names, summaries and manifests without regard to case") {
  World world;
  CHECK(world.registry.search("KNOWS legal").size() == 1);
  CHECK(world.registry.search("acme.mlp").size() == 4); // the plugin, and three experts that need it
  CHECK(world.registry.search("nothing-like-it").empty());
}

TEST_CASE("registry refuses a version that is published already") {
  World world;
  const Error error = error_of([&] { world.registry.publish(draft(world.folder(), expert_manifest("legal"))); });
  CHECK(error.code == Code::usage);
  CHECK(error.unit == "TN-R6 published");
  CHECK(world.registry.show("legal").versions.size() == 2);
}

TEST_CASE("registry adds a plugin build for another platform from the same source only") {
  World world;
  world.registry.publish(plugin_draft(world.folder(), "acme.mlp", "1.2.0", "aarch64-linux"));
  const PublishedPackage plugin = world.registry.show("acme.mlp");
  REQUIRE(plugin.versions[0].version.text() == "1.2.0");
  CHECK(plugin.versions[0].builds.size() == 2);
  const auto again = [&] {
    world.registry.publish(plugin_draft(world.folder(), "acme.mlp", "1.2.0", "aarch64-linux"));
  };
  CHECK(error_of(again).unit == "TN-R6 published");
  const auto other_source = [&] {
    world.registry.publish(plugin_draft(world.folder(), "acme.mlp", "1.2.0", "riscv64-linux", "source 2"));
  };
  const Error error = error_of(other_source);
  CHECK(error.unit == "TN-R6 published");
  CHECK(error.message.find(digest("source 2")) != std::string::npos);
  CHECK(error.message.find(digest("source 1")) != std::string::npos);
  CHECK(world.registry.resolve(PackageRequest::parse("acme.mlp"), Kind::plugin, "aarch64-linux").platform ==
        "aarch64-linux");
}

TEST_CASE("registry refuses names that collide and names of another kind") {
  World world;
  world.registry.publish(draft(world.folder(), expert_manifest("law_de")));
  const Error collision = error_of([&] { world.registry.publish(draft(world.folder(), expert_manifest("law-de"))); });
  CHECK(collision.code == Code::usage);
  CHECK(collision.unit == "TN-R5 name");
  ExpertManifest tiny = expert_manifest("tiny", "2.0.0");
  const Error kind = error_of([&] { world.registry.publish(draft(world.folder(), tiny)); });
  CHECK(kind.code == Code::incompatible);
  CHECK(kind.unit == "TN-R3 kind");
}

TEST_CASE("registry refuses drafts whose manifest, row or files contradict them, and keeps nothing of them") {
  World world;
  const auto refuse = [&](const Draft& bad, Code code) {
    const Error error = error_of([&] { world.registry.publish(bad); });
    INFO(error.what());
    CHECK(error.code == code);
    CHECK_FALSE(world.registry.find("fresh"));
  };
  const auto fresh = [&] { return draft(world.folder(), expert_manifest("fresh")); };
  Draft bad = fresh();
  bad.version = Version::parse("3.0.0");
  refuse(bad, Code::integrity);
  bad = fresh();
  write(bad.files[1].source, "another row"); // files are in path order: expert.json, row, weights
  refuse(bad, Code::integrity);
  bad = fresh();
  bad.files.pop_back();
  refuse(bad, Code::integrity);
  bad = fresh();
  bad.files.push_back({"../escape", bad.files[0].source, "other"});
  refuse(bad, Code::usage);
  bad = fresh();
  bad.files.push_back(bad.files[0]);
  refuse(bad, Code::integrity);
  bad = fresh();
  bad.files.push_back({"gone.bin", world.scratch.path() / "gone", "other"});
  refuse(bad, Code::not_found);
  bad = fresh();
  bad.manifest["width"] = 3;
  refuse(bad, Code::integrity);
}

TEST_CASE("a package folder with a file that nobody expects is refused by the file's name") {
  Scratch scratch;
  draft(scratch.path(), expert_manifest("legal"));
  write(scratch.path() / "training-data.txt", "private");
  const Error error = error_of([&] { draft_from_folder(scratch.path()); });
  CHECK(error.code == Code::usage);
  CHECK(error.message.find("training-data.txt") != std::string::npos);
  ExpertManifest manifest = expert_manifest("legal");
  manifest.files = {{"training-data.txt", "other"}};
  write(scratch.path() / "expert.json", pretty_json(manifest.to_json()));
  CHECK(draft_from_folder(scratch.path()).files.size() == 4);
  manifest.files = {{"gone.txt", "other"}, {"training-data.txt", "other"}};
  write(scratch.path() / "expert.json", pretty_json(manifest.to_json()));
  CHECK(error_of([&] { draft_from_folder(scratch.path()); }).code == Code::not_found);
}

TEST_CASE("a package folder with a link or without a manifest is refused") {
  Scratch scratch;
  CHECK(error_of([&] { draft_from_folder(scratch.path()); }).code == Code::not_found);
  CHECK(error_of([&] { draft_from_folder(scratch.path() / "gone"); }).code == Code::not_found);
  draft(scratch.path(), expert_manifest("legal"));
  fs::create_symlink("/etc/passwd", scratch.path() / "card.md");
  CHECK(error_of([&] { draft_from_folder(scratch.path()); }).code == Code::usage);
}

TEST_CASE("resolve takes the highest version in range that is not yanked") {
  World world;
  const auto pick = [&](const char* request) {
    return world.registry.resolve(PackageRequest::parse(request), Kind::expert).version.text();
  };
  CHECK(pick("legal") == "1.1.0");
  CHECK(pick("legal@~1.0") == "1.0.0");
  world.registry.yank("legal", Version::parse("1.1.0"), "leaks names");
  CHECK(pick("legal") == "1.0.0");
  const Error yanked = error_of([&] { pick("legal@~1.1"); });
  CHECK(yanked.code == Code::not_found);
  CHECK(yanked.unit == "TN-R4 range");
  CHECK(yanked.message.find("leaks names") != std::string::npos);
  world.registry.unyank("legal", Version::parse("1.1.0"));
  CHECK(pick("legal@~1.1") == "1.1.0");
}

TEST_CASE("resolve says what there is when it finds nothing") {
  World world;
  const auto fail = [&](const char* request, Kind kind, const char* platform = "") {
    return error_of([&] { world.registry.resolve(PackageRequest::parse(request), kind, platform); });
  };
  const Error unknown = fail("leagl", Kind::expert);
  CHECK(unknown.code == Code::not_found);
  CHECK(unknown.remedy.find("did you mean legal") != std::string::npos);
  const Error range = fail("legal@^2", Kind::expert);
  CHECK(range.code == Code::not_found);
  CHECK(range.message.find("1.1.0, 1.0.0") != std::string::npos);
  CHECK(fail("legal", Kind::model).unit == "TN-R3 kind");
  const Error platform = fail("acme.mlp", Kind::plugin, "sparc-solaris");
  CHECK(platform.code == Code::incompatible);
  CHECK(platform.unit == "TN-R7 platform");
  CHECK(platform.message.find("sparc-solaris") != std::string::npos);
  CHECK(platform.message.find(kPlatform) != std::string::npos);
}

TEST_CASE("a yanked version is still found by the digest a lock holds, with a warning") {
  World world;
  const Entry entry = world.registry.resolve(PackageRequest::parse("legal"), Kind::expert);
  world.registry.yank("legal", entry.version, "leaks names");
  const Found found = world.registry.locked("legal", entry.version, entry.digest);
  CHECK(found.entry.digest == entry.digest);
  REQUIRE(found.warnings.size() == 1);
  CHECK(found.warnings[0].find("leaks names") != std::string::npos);
  CHECK(error_of([&] { world.registry.locked("legal", entry.version, digest("x")); }).unit == "TN-R14 locked");
}

TEST_CASE("yanking what is yanked, or what is not there, is refused") {
  World world;
  const Version one = Version::parse("1.0.0");
  CHECK(error_of([&] { world.registry.unyank("legal", one); }).code == Code::usage);
  world.registry.yank("legal", one, "");
  CHECK(error_of([&] { world.registry.yank("legal", one, ""); }).code == Code::usage);
  CHECK(error_of([&] { world.registry.yank("legal", Version::parse("9.0.0"), ""); }).code == Code::not_found);
  CHECK(error_of([&] { world.registry.yank("legal", Version::parse("1.1.0"), "two\nlines"); }).code == Code::usage);
  CHECK(error_of([&] { world.registry.yank("nobody", one, ""); }).code == Code::not_found);
  CHECK(error_of([&] { world.registry.yank("legal", Version::parse("1.1.0"), std::string(70000, 'x')); }).code ==
        Code::usage);
}

TEST_CASE("a registry that is not there is refused with what to do") {
  Scratch scratch;
  const Error error = error_of([&] { Registry{scratch.path() / "gone"}; });
  CHECK(error.code == Code::not_found);
  CHECK(error.unit == "TN-R1 registry");
  CHECK_FALSE(error.remedy.empty());
  CHECK(error_of([&] { Registry{scratch.path()}; }).code == Code::not_found);
  write(scratch.path() / "something.txt", "mine");
  CHECK(error_of([&] { Registry::create(scratch.path(), "x"); }).code == Code::usage);
  Registry::open_or_create(scratch.path() / "new", "x");
  CHECK(Registry::open_or_create(scratch.path() / "new", "y").name() == "x");
  CHECK(error_of([&] { Registry::create(scratch.path() / "new", "x"); }).code == Code::usage);
  write(scratch.path() / "new/config.json", R"({"schema": 2, "name": "x"})");
  CHECK(error_of([&] { Registry{scratch.path() / "new"}; }).code == Code::incompatible);
  write(scratch.path() / "new/config.json", R"({"schema": 1, "schema": 1, "name": "x"})");
  CHECK(error_of([&] { Registry{scratch.path() / "new"}; }).code == Code::integrity);
}

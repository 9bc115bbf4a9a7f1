// Bytes that a stranger may have written: each mutation is either read or refused as damaged, never anything else.
// Under the sanitizers this also finds reads and writes out of bounds.
#include "registry/index.hpp"
#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace tenon;
using namespace tenon::fixtures;

namespace {

std::string mutated(std::string text, std::mt19937& random) {
  static const std::vector<std::string> kSpices = {"\"",
                                                   "\\",
                                                   "{",
                                                   "}",
                                                   "[",
                                                   "]",
                                                   ":",
                                                   ",",
                                                   "\n",
                                                   "\xff",
                                                   std::string(1, '\0'),
                                                   "-1",
                                                   "1e999",
                                                   "18446744073709551615",
                                                   "9223372036854775807",
                                                   "null",
                                                   "true",
                                                   "../",
                                                   "sha256:",
                                                   "\"a\":1,",
                                                   "\\ud800",
                                                   std::string(100, '['),
                                                   std::string(300, 'x'),
                                                   "\"schema\":1,"};
  const auto at = [&](std::size_t size) { return std::uniform_int_distribution<std::size_t>(0, size)(random); };
  for (std::size_t rounds = 1 + at(3); rounds > 0; --rounds) {
    const std::size_t place = at(text.size());
    switch (at(5)) {
      case 0:
        if (place < text.size()) text[place] = static_cast<char>(at(255));
        break;
      case 1:
        if (place < text.size()) text[place] = static_cast<char>(text[place] ^ (1 << at(7)));
        break;
      case 2: text.insert(place, kSpices[at(kSpices.size() - 1)]); break;
      case 3: text.erase(place, at(40)); break;
      case 4: text.insert(place, text.substr(at(text.size()), at(200))); break;
      case 5: text.resize(place); break;
    }
  }
  return text;
}

// Counts what was still readable, so that a mutator that only makes rubbish is noticed.
template <typename Read>
int survivors(const std::string& seed_text, int rounds, unsigned seed, Read read) {
  std::mt19937 random(seed);
  int readable = 0;
  for (int i = 0; i < rounds; ++i) {
    const std::string text = mutated(seed_text, random);
    try {
      read(text);
      ++readable;
    } catch (const Error& error) {
      INFO(error.what());
      if (error.code != Code::integrity) FAIL("round " << i << ": refused as " << code_name(error.code));
    }
  }
  return readable;
}

} // namespace

TEST_CASE("mutated index files are read or refused as damaged") {
  World world;
  world.registry.yank("legal", Version::parse("1.0.0"), "why");
  for (const char* name : {"legal", "acme.mlp"}) {
    const int readable = survivors(read(index_path(world.registry.path(), name)), 4000, 1,
                                   [&](const std::string& text) { fold(name, parse_index(text, name)); });
    CHECK(readable > 50);
    CHECK(readable < 4000);
  }
}

TEST_CASE("mutated entries are read or refused as damaged, and what was read can be written") {
  World world;
  for (const char* name : {"legal", "tiny", "acme.mlp"}) {
    const std::string digest = world.registry.show(name).versions[0].builds[0].entry;
    const int readable = survivors(read(world.registry.blob(digest)), 3000, 2, [](const std::string& text) {
      const Entry entry = Entry::parse(text, "fuzz");
      const std::string bytes = entry.bytes();
      if (Entry::parse(bytes, "again").bytes() != bytes) throw std::logic_error("an entry changed by being read");
      if (entry.kind == Kind::expert) ExpertManifest::parse(entry.manifest, "fuzz");
      if (entry.kind == Kind::model) ModelManifest::parse(entry.manifest, "fuzz");
    });
    CHECK(readable > 50);
    CHECK(readable < 3000);
  }
}

TEST_CASE("mutated locks and requests are read or refused as damaged") {
  World world;
  const Lock lock = resolve(world.registry, world.request(), kPlatform).value();
  CHECK(survivors(pretty_json(lock.to_json()), 3000, 3, [](const std::string& text) {
          const Lock read = Lock::parse(parse_json(text, "fuzz"), "fuzz");
          if (!(Lock::parse(read.to_json(), "again") == read)) throw std::logic_error("a lock changed by being read");
        }) > 20);
  CHECK(survivors(pretty_json(world.request().to_json()), 3000, 4, [](const std::string& text) {
          const Request read = Request::parse(parse_json(text, "fuzz"), "fuzz");
          if (!(Request::parse(read.to_json(), "again") == read))
            throw std::logic_error("a request changed by being read");
        }) > 10);
}

TEST_CASE("mutated versions and ranges are read back as written or refused") {
  std::mt19937 random(5);
  for (int i = 0; i < 20000; ++i) {
    const std::string text = mutated(i % 2 ? "1.20.3-rc.1+build.5" : ">=1.2, <2.0.0, ~1.*", random);
    if (const auto version = Version::try_parse(text)) REQUIRE(version->text() == text);
    if (const auto range = Range::try_parse(text)) REQUIRE(Range::try_parse(range->text()).has_value());
  }
}

TEST_CASE("an index or entry of absurd size is refused without being read whole") {
  World world;
  const auto path = index_path(world.registry.path(), "legal");
  std::filesystem::resize_file(path, std::uintmax_t{1} << 40); // sparse: a terabyte of zeros
  CHECK(error_of([&] { world.registry.find("legal"); }).code == Code::integrity);
  const std::string long_line = "{\"schema\":1,\"reason\":\"" + std::string(kEventLimitBytes, 'x') + "\"}\n";
  CHECK(error_of([&] { parse_index(long_line, "legal"); }).code == Code::integrity);
  const auto entry = world.registry.blob(world.registry.show("hr").versions[0].builds[0].entry);
  std::filesystem::permissions(entry, std::filesystem::perms::owner_write, std::filesystem::perm_options::add);
  std::filesystem::resize_file(entry, std::uintmax_t{1} << 40);
  CHECK(error_of([&] { world.registry.resolve(PackageRequest::parse("hr"), Kind::expert); }).code == Code::integrity);
}

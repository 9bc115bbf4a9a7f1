#include "host/loading/library.hpp"

#include "host/loading/native.hpp"
#include "host/loading/rules.hpp"
#include "tests/registry/fixtures.hpp"

#include <dlfcn.h>
#include <link.h>
#include <catch2/catch.hpp>

using namespace tenon;
using namespace tenon::fixtures;
using Catch::Matchers::Contains;

namespace {

std::filesystem::path library(const std::string& name) { return std::filesystem::path(TENON_HOSTILE) / (name + ".so"); }

struct Loading {
  Scratch scratch;
  PluginLoader loader{host_side(host_operators()), scratch.path() / "store", host_table()};

  const Plugin& load(const std::string& name) const { return loader.load({library(name), nullptr}); }
  void check_refused(const std::string& name, const std::string& rule, Code code, const std::string& message) const {
    const Error error = error_of([&] { load(name); });
    CHECK(error.unit == rule);
    CHECK(error.code == code);
    CHECK_THAT(error.message, Contains(message));
    CHECK_FALSE(error.remedy.empty());
  }
};

bool is_mapped(const std::string& part) {
  struct Search {
    const std::string& part;
    bool found = false;
  } search{part};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto& wanted = *static_cast<Search*>(data);
        wanted.found = wanted.found || std::string(info->dlpi_name).find(wanted.part) != std::string::npos;
        return 0;
      },
      &search);
  return search.found;
}

} // namespace

TEST_CASE("an honest plugin is opened from its private copy, once for the same bytes") {
  Loading loading;
  const Plugin& plugin = loading.load("honest");
  CHECK(plugin.facts.title() == "hostile.plain 1.2.0");
  CHECK(plugin.experts() != nullptr);
  CHECK(plugin.path.parent_path() == loading.scratch.path() / "store");
  CHECK(&loading.load("honest") == &plugin);
}

TEST_CASE("an opened plugin is never unloaded, whoever lets go of it") {
  Loading loading;
  const Plugin& plugin = loading.load("honest");
  void* handle = dlopen(plugin.path.c_str(), RTLD_NOW | RTLD_NOLOAD);
  REQUIRE(handle);
  for (int i = 0; i < 5; ++i) dlclose(handle);
  CHECK(is_mapped(plugin.path.filename().string()));
}

TEST_CASE("a refused plugin is never mapped into the process") {
  Loading loading;
  for (const char* name :
       {"no_note", "second_export", "links_openmp", "search_path", "registers", "other_libtorch", "next_major"}) {
    CHECK_THROWS_AS(loading.load(name), Error);
  }
  std::size_t stored = 0;
  for (const auto& item : std::filesystem::directory_iterator(loading.scratch.path() / "store")) {
    if (item.path().extension() != ".so") continue;
    ++stored;
    CHECK_FALSE(is_mapped(item.path().filename().string()));
  }
  CHECK(stored == 7);
}

TEST_CASE("what the dynamic loader refuses is said in its words") {
  Loading().check_refused("undefined", "TN-P18 load", Code::plugin, "a_symbol_that_nobody_has");
}

TEST_CASE("a plugin whose table says something else than its facts is refused") {
  const Loading loading;
  loading.check_refused("facts_lie", "TN-P19 descriptor", Code::plugin,
                        "built for 1.3 needing 1.0, its facts say 1.0 and 1.0");
  loading.check_refused("no_tier", "TN-P19 descriptor", Code::plugin, "found no tenon.native/1");
  loading.check_refused("empty_function", "TN-P19 descriptor", Code::plugin, "empty functions");
}

TEST_CASE("a plugin whose init fails is refused with its own words, and exit status 7") {
  Loading().check_refused("init_fails", "TN-P23 init", Code::plugin,
                          "hostile.plain 1.2.0: init failed with status 5: no licence found");
  CHECK(exit_status(Code::plugin) == 7);
}

TEST_CASE("one bad plugin does not fail the others") {
  Loading loading;
  const std::vector<PluginSource> sources = {{library("other_libtorch"), nullptr},
                                             {library("honest"), nullptr},
                                             {library("missing"), nullptr},
                                             {library("built_newer"), nullptr}};
  const auto outcomes = loading.loader.load_all(sources);
  REQUIRE(outcomes.size() == 4);
  CHECK(outcomes[0].refusal->rule == "TN-P2 platform");
  CHECK(outcomes[1].plugin != nullptr);
  CHECK(outcomes[2].refusal->code == Code::not_found);
  CHECK(outcomes[3].plugin != nullptr);
}

TEST_CASE("the plugins that come with Tenon load, by the same rules as a stranger's") {
  Loading loading;
  for (const char* name : {"tenon_transformer", "tenon_low_rank"}) {
    const auto path = std::filesystem::path(TENON_PLUGINS) / (std::string(name) + ".so");
    const Plugin& plugin = loading.loader.load({path, nullptr});
    CHECK(plugin.facts.platform == host_platform());
    CHECK(plugin.experts() != nullptr);
  }
}

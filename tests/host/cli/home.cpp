#include "host/cli/home.hpp"

#include <catch2/catch.hpp>
#include <map>

#include "registry/base/error.hpp"

using namespace tenon;

namespace {

std::string root_with(const std::map<std::string, std::string>& environment) {
  return home_root([&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

} // namespace

TEST_CASE("home is where TENON_HOME says, else by XDG, else under the user's own") {
  CHECK(root_with({{"TENON_HOME", "/a"}, {"XDG_DATA_HOME", "/b"}, {"HOME", "/c"}}) == "/a");
  CHECK(root_with({{"XDG_DATA_HOME", "/b"}, {"HOME", "/c"}}) == "/b/tenon");
  CHECK(root_with({{"XDG_DATA_HOME", "relative"}, {"HOME", "/c"}}) == "/c/.local/share/tenon");
  CHECK(root_with({{"TENON_HOME", ""}, {"HOME", "/c"}}) == "/c/.local/share/tenon");
  CHECK(root_with({}).empty());
}

TEST_CASE("without any home an error names the ways to give one") {
  try {
    Home(std::filesystem::path()).registry();
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code == Code::environment);
    CHECK(error.remedy.find("TENON_HOME") != std::string::npos);
  }
}

TEST_CASE("a composition's name stays inside its folder") {
  const Home home("/data");
  CHECK(home.composition("bot-1.2_x") == "/data/compositions/bot-1.2_x");
  for (const std::string& name : {std::string(), std::string(".."), std::string("a/b"), std::string(".hidden"),
                                  std::string("a b"), std::string(65, 'a'), std::string("a\0b", 3)}) {
    CHECK_THROWS_AS(home.composition(name), Error);
  }
}

// compose and add: a composition is what was asked for, whoever else asks at the same time.
#include "registry/base/files.hpp"
#include "tests/host/cli/program/program.hpp"

#include <deque>

using namespace tenon;
using Catch::Matchers::Contains;

TEST_CASE("a composition cannot take the name of a model, and says when it takes another's place") {
  const World& world = world_with_composition();
  const Finished refused = world.call({"compose", "toy", "--model", "toy", "legal"});
  CHECK(refused.status == 2);
  CHECK_THAT(refused.err, Contains("a model of this name") && Contains("remedy"));
  CHECK_THAT(world.call({"compose", "twice", "--model", "toy", "legal"}).err, !Contains("takes its place"));
  CHECK_THAT(world.call({"compose", "twice", "--model", "toy", "legal"}).err, Contains("takes its place"));
}

TEST_CASE("experts that are added at the same time are all in the composition") {
  World world;
  world.compose_trained("legal", "tenon.low_rank");
  const fs::path folder = world.scratch.path() / "legal";
  const std::string manifest = read_file(folder / "expert.json"), name = "\"name\": \"legal\"";
  std::vector<std::string> added;
  for (const char* other : {"tax", "labour", "trade"}) {
    std::string text = manifest;
    text.replace(text.find(name), name.size(), "\"name\": \"" + std::string(other) + "\"");
    write_file(folder / "expert.json", text);
    REQUIRE(world.call({"publish", folder.string()}).status == 0);
    added.push_back(other);
  }
  REQUIRE(world.call({"compose", "many", "--model", "toy"}).status == 0);
  std::deque<Process> running;
  for (const std::string& other : added)
    running.emplace_back(std::vector<std::string>{TENON_PROGRAM, "add", "many", other},
                         std::map<std::string, std::string>{{"TENON_HOME", world.home().string()}});
  for (Process& one : running) CHECK(one.wait().status == 0);
  const std::string lock = read_file(world.home() / "compositions" / "many" / "composition.lock.json");
  for (const std::string& other : added) CHECK_THAT(lock, Contains("\"" + other + "\""));
}

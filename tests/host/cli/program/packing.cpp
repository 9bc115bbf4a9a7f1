// model pack, doctor and bench, as a user calls them.
#include <catch2/catch.hpp>

#include "tests/host/cli/program/program.hpp"

using namespace tenon;
using Catch::Matchers::Contains;

TEST_CASE("model pack makes packed weights once, says where they are, and a run needs nothing more") {
  World world;
  REQUIRE(world.new_model("toy").status == 0);
  const json::object first = json_of(world.call({"model", "pack", "toy", "--format", "int8", "--json"}));
  REQUIRE(first.at("packages").as_array().size() == 2); // the model, and its base
  for (const json::value& package : first.at("packages").as_array()) {
    CHECK(package.at("made_now").as_bool());
    const fs::path file = std::string(package.at("path").as_string());
    CHECK(fs::file_size(file) >= static_cast<std::uint64_t>(package.at("bytes").as_int64()));
  }
  const std::set<std::string> before = World::files(world.home() / "cache");
  const json::object again = json_of(world.call({"model", "pack", "toy", "--format", "int8", "--json"}));
  for (const json::value& package : again.at("packages").as_array()) CHECK_FALSE(package.at("made_now").as_bool());
  CHECK(world.call({"run", "toy", "abc", "--compute", "int8", "--max-tokens", "2"}).status == 0);
  CHECK(World::files(world.home() / "cache") == before);
}

TEST_CASE("model pack packs experts too, and says which have nothing of their own") {
  const World& world = world_with_composition();
  const json::object told =
      json_of(world.call({"model", "pack", "toy", "--format", "bf16", "--experts", "legal", "--json"}));
  REQUIRE(told.at("packages").as_array().size() == 3);
  CHECK_THAT(std::string(told.at("packages").as_array()[2].at("package").as_string()), Contains("legal"));
}

TEST_CASE("an expert that cannot have a format is refused when it is loaded, and what stays float32 is said") {
  World world;
  world.compose_trained("odd", "tenon.mlp", {"inner_width=40"});
  const std::vector<std::vector<std::string>> refused = {
      {"run", "bot", "abc", "--compute", "int8"},
      {"model", "pack", "toy", "--format", "int8", "--experts", "odd"},
      {"compose", "narrow", "--model", "toy", "odd", "--compute", "int8"}};
  for (const auto& words : refused) {
    const Finished found = world.call(words);
    INFO(found.err);
    CHECK(found.status == 4);
    CHECK_THAT(found.err, Contains("odd") && Contains("40 inputs, int8 needs a multiple of 32") && Contains("bf16"));
  }
  CHECK_FALSE(fs::exists(world.home() / "compositions" / "narrow"));
  const Finished stored = world.call({"run", "bot", "abc", "--compute", "stored", "--max-tokens", "2"});
  CHECK(stored.status == 0);
  CHECK_THAT(stored.err, Contains("odd") && Contains("stored in float32 and stay so"));
  CHECK(world.call({"run", "bot", "abc", "--compute", "bf16", "--max-tokens", "2"}).err.find("stay so") ==
        std::string::npos);
}

TEST_CASE("model pack refuses what it cannot make, and names what there is") {
  const World& world = world_with_model();
  const Finished plain = world.call({"model", "pack", "toy", "--format", "float32"});
  CHECK(plain.status == 2);
  CHECK_THAT(plain.err, Contains("remedy:") && Contains("int8"));
  const Finished unknown = world.call({"model", "pack", "toy", "--format", "int5"});
  CHECK(unknown.status == 2);
  CHECK_THAT(unknown.err, Contains("int5") && Contains("stored") && Contains("remedy:") && !Contains("float32"));
  CHECK(world.call({"model", "pack", "nothing", "--format", "int8"}).status == 3);
}

TEST_CASE("doctor says which kernels are in use, and refuses a tier that nobody has") {
  const World world;
  const Finished forced = world.call({"doctor"}, {{"TENON_TIER", "reference"}, {"TENON_THREADS", "1"}});
  CHECK(forced.status == 0);
  CHECK_THAT(forced.out, Contains("reference on 1 thread"));
  const Finished refused = world.call({"doctor"}, {{"TENON_TIER", "avx1024"}});
  CHECK(refused.status == 1);
  CHECK_THAT(refused.out + refused.err, Contains("avx1024") && Contains("unset the variable"));
}

TEST_CASE("bench tells the machine's limits and how much of them each phase reached") {
  const World& world = world_with_composition();
  for (const char* compute : {"float32", "int8"}) {
    INFO(compute);
    const json::object told = json_of(world.call({"bench", "bot", "--compute", compute, "--prompts", "16", "--contexts",
                                                  "0,8", "--steps", "4", "--rounds", "2", "--json", "--quiet"}));
    CHECK(told.at("pages").as_string() == "mapped");
    CHECK(told.at("keys") == (std::string(compute) == "float32" ? "float32" : "bf16"));
    CHECK(told.at("machine").at("all_threads").at("read_gb_per_second").as_double() > 0);
    REQUIRE(told.at("phases").as_array().size() == 3);
    for (const json::value& phase : told.at("phases").as_array()) CHECK(phase.at("tokens_per_second").as_double() > 0);
    for (std::size_t step : {1, 2}) CHECK(told.at("phases").as_array()[step].at("reached").as_double() > 0);
    const double knows_bf16 = told.at("machine").at("all_threads").at("bf16_gop_per_second").as_double();
    for (const json::value& phase : told.at("phases").as_array()) {
      if (knows_bf16 > 0) CHECK(phase.at("limit_tokens_per_second").as_double() > 0);
      std::vector<double> rates;
      for (const json::value& run : phase.at("runs").as_array()) {
        rates.push_back(run.at("tokens_per_second").as_double());
        for (const char* threads : {"one_thread", "all_threads"})
          CHECK(run.at("machine").at(threads).at("read_gb_per_second").as_double() > 0);
      }
      REQUIRE(rates.size() == 2);
      const double middle = phase.at("tokens_per_second").as_double();
      CHECK(middle >= std::min(rates[0], rates[1]));
      CHECK(middle <= std::max(rates[0], rates[1]));
    }
  }
}

TEST_CASE("bench refuses lengths that the context does not hold, with both numbers") {
  const Finished refused = world_with_model().call({"bench", "toy", "--prompts", "99999"});
  CHECK(refused.status == 2);
  CHECK_THAT(refused.err, Contains("99999") && Contains("context"));
}

TEST_CASE("bench --plain names the table of every line, and the note tells one round and the form of keys") {
  const Finished told = world_with_model().call(
      {"bench", "toy", "--prompts", "16", "--contexts", "0", "--steps", "4", "--rounds", "1", "--plain"});
  INFO(told.out << told.err);
  REQUIRE(told.status == 0);
  std::istringstream lines(told.out);
  for (std::string line; std::getline(lines, line);)
    CHECK((line.starts_with("machine\t") || line.starts_with("phase\t")));
  CHECK_THAT(told.out, Contains("machine\t1\t") && Contains("phase\tprompt of 16\t") && Contains("phase\tsteps"));
  CHECK_THAT(told.err, Contains("one round;") && Contains("keys and values in float32"));
}

TEST_CASE("packing, and reading a long prompt, say in a log how far they came") {
  World world;
  REQUIRE(world.new_model("toy").status == 0);
  const Finished packed = world.call({"model", "pack", "toy", "--format", "int8"});
  CHECK(packed.status == 0);
  CHECK_THAT(packed.err, Contains("preparing toy") && Contains("100%") && Contains(" MB"));
  CHECK_THAT(world.call({"model", "pack", "toy", "--format", "bf16", "--quiet"}).err, !Contains("preparing"));
  const Finished read = world.call({"run", "toy", std::string(600, 'x'), "--max-tokens", "1", "--context", "1000"});
  CHECK(read.status == 0);
  CHECK_THAT(read.err, Contains("reading 100%  600/600 tokens"));
}

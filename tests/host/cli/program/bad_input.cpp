// Bad input to the program itself: the exit status, both sides, the remedy, and nothing half-written.
#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "tests/host/cli/program/program.hpp"

using namespace tenon;
using Catch::Matchers::Contains;

namespace {

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

fs::path largest_file(const fs::path& folder) {
  fs::path largest;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (largest.empty() || entry.file_size() > fs::file_size(largest)) largest = entry.path();
  }
  return largest;
}

Finished train(const World& world, const fs::path& data, const std::string& architecture = "tenon.low_rank") {
  return world.call({"expert", "train", "legal", "--model", "toy", "--arch", architecture, "--data", data.string(),
                     "--out", (world.scratch.path() / "legal").string()});
}

} // namespace

TEST_CASE("a mistyped command exits 2, as JSON where that was asked for") {
  const World world;
  const Finished plain = world.call({"lst"});
  CHECK(plain.status == 2);
  CHECK_THAT(plain.err, Contains("did you mean: tenon list"));
  const Finished json = world.call({"lst", "--json"});
  CHECK(json.status == 2);
  CHECK_THAT(json.err, Contains("{\"error\":{\"code\":\"usage\""));
  CHECK(json.out.empty());
}

TEST_CASE("doctor finds this build sound and says so in JSON") {
  const World world;
  const Finished doctor = world.call({"doctor", "--json"});
  INFO(doctor.out << doctor.err);
  CHECK(doctor.status == 0);
  CHECK_THAT(doctor.out, Contains("\"healthy\": true"));
}

TEST_CASE("a cut outside the model exits 2, names both, and publishes nothing") {
  const World world;
  for (const char* cut : {"2:9", "4:2", "3:3", "x:y", "-1:2", "99999999999999999999:2"}) {
    INFO(cut);
    const Finished refused = world.new_model("toy", cut);
    CHECK(refused.status == 2);
    CHECK_THAT(refused.err, Contains("remedy:"));
    CHECK(World::files(world.home() / "registry" / "index").empty());
  }
}

TEST_CASE("a model file that is missing exits 3, one that is no model exits 5 and names the file") {
  const World world;
  const fs::path file = world.scratch.path() / "model.gguf";
  const std::vector<std::string> words = {"model", "import",        file.string(),        "--cut",
                                          "1:2",   "--calibration", world.text().string()};
  CHECK(world.call(words).status == 3);
  write(file, "GGUF but not really");
  const Finished damaged = world.call(words);
  CHECK(damaged.status == 5);
  CHECK_THAT(damaged.err, Contains("model.gguf"));
  CHECK(World::files(world.home() / "registry" / "index").empty());
}

TEST_CASE("a registry that is not there exits 3 and is not made by looking") {
  const World world;
  const fs::path nowhere = world.scratch.path() / "nowhere";
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"list"}, {"show", "x"}, {"verify"}, {"compose", "bot", "--model", "toy"}}) {
    std::vector<std::string> all = words;
    all.insert(all.end(), {"--registry", nowhere.string()});
    INFO(words.front());
    CHECK(world.call(all).status == 3);
    CHECK_FALSE(fs::exists(nowhere));
  }
}

TEST_CASE("an unknown model, expert or architecture exits 3") {
  const World& world = world_with_model();
  CHECK(world.call({"compose", "bot", "--model", "nobody"}).status == 3);
  CHECK(world.call({"compose", "bot", "--model", "toy", "nobody"}).status == 3);
  CHECK_FALSE(fs::exists(world.home() / "compositions" / "bot"));
  const Finished unknown = train(world, world.text(), "acme.unheard");
  INFO(unknown.err);
  CHECK(unknown.status == 3);
  CHECK_THAT(unknown.err, Contains("acme.unheard") && Contains("remedy:"));
}

TEST_CASE("a corpus that is missing, empty, binary or too small is refused before anything is trained") {
  const World& world = world_with_model();
  const fs::path corpora = world.scratch.path() / "corpora";
  fs::create_directories(corpora / "empty");
  std::string noise;
  for (int i = 0; i < 40000; ++i) noise += static_cast<char>(i * 7919 >> 3);
  write(corpora / "binary" / "a.txt", noise + std::string(100, '\0'));
  write(corpora / "small" / "a.txt", "Too little.\n");
  for (const auto& [name, status] : {std::pair{"missing", 3}, {"empty", 2}, {"binary", 2}, {"small", 2}}) {
    const Finished refused = train(world, corpora / name);
    INFO(name << ": " << refused.err);
    CHECK(refused.status == status);
    CHECK_THAT(refused.err, Contains("remedy:"));
    CHECK_FALSE(fs::exists(world.scratch.path() / "legal" / "expert.json"));
  }
}

TEST_CASE("a configuration out of its range exits 2 with both sides, before anything of that size is made") {
  const World& world = world_with_model();
  for (const auto& [architecture, setting, needed] : {std::tuple{"tenon.low_rank", "rank=0", "1"},
                                                      {"tenon.low_rank", "rank=100000000000", "65536"},
                                                      {"tenon.memory", "neighbors=0", "1"},
                                                      {"tenon.memory", "temperature=-1", "0"},
                                                      {"tenon.transformer", "blocks=1000000", "1024"},
                                                      {"tenon.transformer_on_base", "width=999999999999", "65536"}}) {
    const Finished refused =
        world.call({"expert", "train", "legal", "--model", "toy", "--arch", architecture, "--data",
                    world.text().string(), "--out", (world.scratch.path() / "legal").string(), "--set", setting});
    INFO(setting << ": " << refused.err);
    CHECK(refused.status == 2);
    CHECK_THAT(refused.err, Contains("config") && Contains(needed) && Contains("remedy:"));
  }
}

TEST_CASE("one flipped byte in a published file is found by verify, with 5") {
  const World world;
  REQUIRE(world.new_model("toy").status == 0);
  REQUIRE(world.call({"verify"}).status == 0);
  const fs::path victim = largest_file(world.blobs());
  fs::permissions(victim, fs::perms::owner_write, fs::perm_options::add);
  {
    std::fstream file(victim, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(1000);
    const char byte = static_cast<char>(file.get());
    file.seekp(1000);
    file.put(static_cast<char>(byte ^ 1));
  }
  const Finished found = world.call({"verify"});
  CHECK(found.status == 5);
}

TEST_CASE("a full disk ends publishing with a clear error, and what is there stays whole") {
  // Full at once, while the first blob is written, and near the end.
  for (const char* bytes : {"0", "30000", "300000"}) {
    const World world;
    const Finished full = world.new_model(
        "toy", "2:4",
        {{"LD_PRELOAD", TENON_NO_SPACE}, {"NO_SPACE_UNDER", world.home().string()}, {"NO_SPACE_BYTES", bytes}});
    INFO(bytes << " bytes: " << full.err);
    CHECK(full.status == 1);
    CHECK_THAT(full.err, Contains("No space left") && Contains("remedy:"));
    for (const std::string& file : World::files(world.home())) CHECK(file.find(".tmp") == std::string::npos);
    if (fs::exists(world.home() / "registry")) CHECK(world.call({"verify"}).status == 0);
    // With room again the same words succeed.
    CHECK(world.new_model("toy").status == 0);
  }
}

TEST_CASE("without permission to write, the error names the folder, and nothing is left behind") {
  const World world;
  fs::permissions(world.home(), fs::perms::owner_read | fs::perms::owner_exec);
  const Finished refused =
      world.call({"model", "new", "toy", "--calibration", world.text().string()}, {}, Privileges::dropped);
  fs::permissions(world.home(), fs::perms::owner_all);
  INFO(refused.err);
  CHECK(refused.status == 1);
  CHECK_THAT(refused.err, Contains("ermission denied") && Contains(world.home().string()));
  CHECK(World::files(world.home()).empty());
}

TEST_CASE("a file that may not be read is the environment's fault, not the package's") {
  const World world;
  const fs::path secret = world.scratch.path() / "secret.gguf";
  write(secret, "GGUF");
  fs::permissions(secret, fs::perms::none);
  const Finished refused = world.call({"model", "import", secret.string(), "--cut", "1:2"}, {}, Privileges::dropped);
  INFO(refused.err);
  CHECK(refused.status == 1);
  CHECK_THAT(refused.err, Contains("ermission denied"));
}

TEST_CASE("results that find no room end every command with 1, and say so") {
  const World& world = world_with_model();
  write(world.scratch.path() / "one.jsonl", "{\"prompt\": \"abc\"}\n");
  for (const char* words :
       {"run toy abc --max-tokens 2", "run toy abc --max-tokens 2 --json", "run toy --batch one.jsonl --max-tokens 2",
        "--quiet bench toy --prompts 8 --contexts 0 --steps 2 --rounds 1", "list", "--version", "--help"}) {
    const Finished full =
        run_program({"/bin/sh", "-c", "cd \"$HERE\" && \"$PROGRAM\" " + std::string(words) + " > /dev/full"},
                    {{"PROGRAM", TENON_PROGRAM},
                     {"HERE", world.scratch.path().string()},
                     {"TENON_HOME", world.home().string()},
                     {"NO_COLOR", "1"}});
    INFO(words << ": " << full.err);
    CHECK(full.status == 1);
    CHECK_THAT(full.err, Contains("No space left") && Contains("remedy"));
  }
}

TEST_CASE("a number that an option does not take exits 2 with a few words") {
  const World& world = world_with_model();
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"bench", "toy", "--prompts", "0"},
                                             {"bench", "toy", "--prompts", "1,x"},
                                             {"bench", "toy", "--rounds", "0"},
                                             {"run", "toy", "abc", "--max-tokens", "0"},
                                             {"run", "toy", "abc", "--max-tokens", "1e30"},
                                             {"compose", "bot", "--model", "toy", "--top-k", "0"}}) {
    const Finished refused = world.call(words);
    INFO(refused.err);
    CHECK(refused.status == 2);
    CHECK_THAT(refused.err,
               Contains("need a whole number from 1") && Contains("remedy:") && Contains(words[words.size() - 2]));
  }
  for (const auto& [option, value] : {std::pair{"--temperature", "-1"}, {"--top-p", "2"}}) {
    const Finished refused = world.call({"run", "toy", "abc", option, value});
    CHECK(refused.status == 2);
    CHECK_THAT(refused.err, Contains("remedy:"));
  }
}

TEST_CASE("a variable that asks for what cannot be had exits 1 in any format, with its name and a remedy") {
  const World& world = world_with_model();
  for (const auto& [name, value] : {std::pair{"TENON_TIER", "nonsense"},
                                    {"TENON_THREADS", "0"},
                                    {"TENON_KEYS", "int4"},
                                    {"TENON_PAGES", "large"}}) {
    const Finished refused = world.call({"run", "toy", "abc"}, {{name, value}});
    INFO(refused.err);
    CHECK(refused.status == 1);
    CHECK_THAT(refused.err, Contains(name) && Contains(value) && Contains("remedy:"));
    CHECK_THAT(refused.err, !Contains("mistake in Tenon"));
  }
}

// compose with a policy, trace and replay, as a user calls them.
#include "host/formats/trace_file.hpp"
#include "tests/host/cli/program/program.hpp"

using namespace tenon;
using Catch::Matchers::Contains;

namespace {

std::string data(const World& world) { return "numbers=" + (world.text() / "numbers").string(); }

std::vector<std::string> trace_words(const World& world, const std::string& composition, const fs::path& out) {
  return {"trace", composition, "--data",     data(world), "--sequence-length",
          "32",    "--out",     out.string(), "--json",    "--quiet"};
}

} // namespace

TEST_CASE("trace writes what Python reads, and a replay of it gives the same losses") {
  const World& world = world_with_composition();
  const fs::path out = world.scratch.path() / "trace.safetensors", again = world.scratch.path() / "again.safetensors";
  const json::object told = json_of(world.call(trace_words(world, "bot", out)));
  const TraceFile file(out);
  CHECK(file.head().experts.at(1).name == "legal");
  const json::value& corpus = told.at("corpora").as_array().at(0);
  CHECK(corpus.at("tokens").as_int64() == file.head().corpora.at(0).tokens);
  CHECK(corpus.at("documents") == 4);
  CHECK(told.at("work_skipped_by_expert").as_object().size() == 2);

  std::vector<std::string> words = trace_words(world, "bot", again);
  words.insert(words.end(), {"--replay", out.string()});
  const json::object replayed = json_of(world.call(words));
  CHECK(replayed.at("corpora").as_array().at(0).at("nll").as_double() == Approx(corpus.at("nll").as_double()));

  const json::object scored = json_of(world.call({"eval", "bot", "--data", data(world), "--sequence-length", "32",
                                                  "--blocks", "4", "--replay", out.string(), "--json", "--quiet"}));
  CHECK(scored.at("pooled").at("replayed").at("nll").as_double() ==
        Approx(scored.at("pooled").at("composed").at("nll").as_double()));
}

TEST_CASE("a trace of another composition is refused, and so is a file that is no trace") {
  const World& world = world_with_composition();
  const fs::path out = world.scratch.path() / "base.safetensors", second = world.scratch.path() / "second";
  CHECK(world.call(trace_words(world, "toy", out)).status == 0); // the model alone
  std::vector<std::string> words = trace_words(world, "bot", second);
  words.insert(words.end(), {"--replay", out.string()});
  const Finished refused = world.call(words);
  CHECK(refused.status == 4);
  CHECK_THAT(refused.err, Contains("legal") && Contains("toy-base"));
  words.back() = (world.text() / "numbers" / "0.txt").string();
  CHECK(world.call(words).status == 5);
  words.back() = "/no/such/trace";
  CHECK(world.call(words).status == 3);
  CHECK_FALSE(fs::exists(second));
}

TEST_CASE("compose locks a policy with its parameter, and refuses a parameter of another") {
  const World& world = world_with_composition();
  const auto compose = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"compose", "kept", "--model", "toy", "legal", "--json", "--quiet"};
    words.insert(words.end(), more.begin(), more.end());
    return world.call(words);
  };
  const json::object locked = json_of(compose({"--policy", "sticky", "--margin", "1.5"}));
  CHECK(locked.at("router").at("policy") == "sticky");
  CHECK(locked.at("router").at("margin") == 1.5);
  const json::object told =
      json_of(world.call({"run", "kept", "prose number", "--max-tokens", "8", "--json", "--quiet"}));
  CHECK(told.at("shares").at("legal").at("work_skipped").as_double() <= 1.0);
  CHECK(json_of(compose({"--policy", "sequence"})).at("router").at("decide_after") == 32);

  const Finished refused = compose({"--policy", "sequence", "--margin", "1"});
  CHECK(refused.status == 2);
  CHECK_THAT(refused.err, Contains("--margin") && Contains("sticky") && Contains("sequence"));
  CHECK(compose({"--decide-after", "8"}).status == 2);
  CHECK(compose({"--policy", "sequence", "--decide-after", "1"}).status == 2);
  CHECK(compose({"--policy", "sticky", "--strengths", "softmax"}).status == 2);
  CHECK(compose({"--policy", "lazy"}).status == 2);
}

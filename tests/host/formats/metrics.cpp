#include "host/formats/metrics.hpp"

#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "tests/support/mutate_json.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

const std::string kStep = R"({"kind":"domain","loss":3.5,"step":1,"tokens":256,"blocks":[4]})";
const std::string kGeneral = R"({"kind":"general","loss":0.02,"step":2,"tokens":256})";
const std::string kHeldOut = R"({"kind":"held-out perplexity","perplexity":{"base":9,"alone":7,"mixture":8},"step":2})";

TEST_CASE("a training's metrics are read back; a step that was not finite and a torn last line are left out") {
  const std::string lost = R"({"kind":"domain","loss":null,"step":3,"tokens":256})";
  const TrainingMetrics out =
      parse_metrics(kStep + "\n" + kGeneral + "\n" + kHeldOut + "\n" + lost + "\n" + kStep.substr(0, 20), "m");
  REQUIRE(out.steps.size() == 2);
  CHECK(out.steps[0].loss == 3.5);
  CHECK(out.steps[0].tokens == 256);
  CHECK_FALSE(out.steps[0].general);
  CHECK(out.steps[1].general);
  REQUIRE(out.held_out.size() == 1);
  CHECK(out.held_out[0].alone == 7);
  CHECK(parse_metrics("", "m").steps.empty());
}

TEST_CASE("metrics that are no metrics are refused by line, a folder without any by name") {
  for (const std::string line :
       {R"({"kind":"domain","loss":"x","step":1,"tokens":1})", "nonsense",
        R"({"kind":"held-out perplexity","perplexity":{"base":-1,"alone":7,"mixture":8},"step":2})"})
    try {
      (void)parse_metrics(kStep + "\n" + line + "\n", "metrics.jsonl");
      FAIL("it was read: " + line);
    } catch (const Error& error) {
      CHECK(error.code == Code::usage);
      CHECK_THAT(error.what(), Catch::Contains("metrics.jsonl:2"));
    }
  const Scratch scratch;
  CHECK_THROWS_AS(read_metrics(scratch.path()), Error);
  write_file(scratch.path() / ".run" / "metrics.jsonl", kStep + "\n");
  CHECK(read_metrics(scratch.path()).steps.size() == 1);
  CHECK(read_metrics(scratch.path() / ".run").steps.size() == 1);
}

TEST_CASE("damaged metrics are read or refused") {
  Mutator mutator(12);
  int read = 0, refused = 0;
  for (int i = 0; i < 4000; ++i) {
    const std::string& valid = i % 3 ? kStep : kHeldOut;
    try {
      (void)parse_metrics((i % 2 ? mutator.mutate(valid) : mutate_json(mutator, valid)) + "\n", "fuzz");
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(read > 200);
  CHECK(refused > 1000);
}

} // namespace
} // namespace tenon

#include "host/inference/benchmark.hpp"

#include "registry/base/error.hpp"
#include "tests/support/tiny_model.hpp"

#include <catch2/catch.hpp>

#include <limits>

namespace tenon::test {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();

TEST_CASE("a bench of more than the context holds, or anybody waits for, is refused with both numbers and a remedy") {
  const Tiny tiny; // whose context is 128
  const auto composition = tiny.compose({});
  const auto text = tokens("text", 50);
  const auto refusal = [&](BenchmarkOptions options) -> std::string {
    try {
      (void)benchmark(*composition, text, options);
    } catch (const Error& error) {
      CHECK(error.code == Code::usage);
      CHECK_FALSE(error.remedy.empty());
      return error.message;
    }
    return "none";
  };
  using Catch::Contains;
  CHECK_THAT(refusal({{129}, {}, 4, 1}), Contains("129") && Contains("holds 128"));
  CHECK_THAT(refusal({{}, {100}, 28, 1}), Contains("28 steps after 100") && Contains("holds 128"));
  CHECK_THAT(refusal({{}, {100}, kLargest, 1}), Contains("steps after 100") && Contains("holds 128"));
  CHECK_THAT(refusal({{}, {kLargest}, 1, 1}), Contains("1 steps after") && Contains("holds 128"));
  for (const std::int64_t rounds : {kLargest, kLargest - 1, std::int64_t{5'000'000}})
    CHECK_THAT(refusal({{}, {0}, 64, rounds}), Contains(std::to_string(rounds) + " rounds of 64 tokens"));
  CHECK_THAT(refusal({{100}, {}, 1, kLargest}), Contains("rounds of 100 tokens"));
}

TEST_CASE("a bench tells every token it writes, and stops between two of them") {
  const Tiny tiny;
  const auto composition = tiny.compose({});
  BenchmarkOptions options;
  options.prompts = {}, options.contexts = {0}, options.steps = 40, options.rounds = 1;
  std::vector<std::int64_t> told;
  options.progress = [&](std::int64_t done, std::int64_t total) {
    CHECK(total == 2 * 41);
    told.push_back(done);
  };
  options.interrupted = [&] { return !told.empty() && told.back() == 10; };
  try {
    (void)benchmark(*composition, tokens("text", 50), options);
    FAIL("it did not stop");
  } catch (const Error& error) {
    CHECK(error.code == Code::interrupted);
  }
  CHECK(told == std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
}

TEST_CASE("a bench that is interrupted while it reads a prompt stops before the prompt's end") {
  const Tiny tiny;
  const auto composition = tiny.compose({});
  BenchmarkOptions options;
  options.prompts = {100}, options.contexts = {}, options.rounds = 1;
  int asked = 0;
  options.interrupted = [&] { return ++asked > 1; }; // not yet when the measurement begins
  CHECK_THROWS_WITH(benchmark(*composition, tokens("text", 50), options), Catch::Contains("while reading"));
}

} // namespace
} // namespace tenon::test

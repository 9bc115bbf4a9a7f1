#include "host/inference/sampling.hpp"

#include "registry/base/error.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>

namespace tenon {
namespace {

const std::vector<float> kLogits = {0.0f, 2.0f, 1.0f, -1.0f, 1.0f};

std::vector<std::int32_t> ids(const std::vector<Choice>& all) {
  std::vector<std::int32_t> out;
  for (const Choice& one : all) out.push_back(one.id);
  return out;
}

Code code_of(std::vector<float> logits, SamplingOptions options) {
  try {
    (void)choices(logits, options);
  } catch (const Error& error) {
    return error.code;
  }
  return Code::bug;
}

TEST_CASE("greedy takes the largest logit, and the lowest id among equals") {
  CHECK(Sampler({}).sample(kLogits, 7) == 1);
  CHECK(Sampler({}).sample(std::vector<float>{1, 3, 3, 3}, 0) == 1);
  CHECK(Sampler({}).sample(std::vector<float>{-INFINITY, -5}, 0) == 1);
}

TEST_CASE("wherever it stands in a vocabulary, the largest logit is found, and what is no number refused") {
  constexpr std::size_t vocabulary = 2 * 4096 + 64 + 5; // parts, vectors, and some logits behind them
  for (const std::size_t at : {std::size_t{0}, std::size_t{63}, std::size_t{64}, std::size_t{4095}, std::size_t{4096},
                               std::size_t{8191}, std::size_t{8192}, vocabulary - 5, vocabulary - 1}) {
    CAPTURE(at);
    std::vector<float> logits(vocabulary, -3.0f);
    logits[at] = -1.0f;
    CHECK(Sampler({}).sample(logits, 0) == static_cast<std::int32_t>(at));
    logits.back() = -1.0f; // an equal
    CHECK(Sampler({}).sample(logits, 0) == static_cast<std::int32_t>(at));
    for (const float strange : {std::numeric_limits<float>::quiet_NaN(), INFINITY}) {
      logits[at] = strange;
      CHECK(code_of(logits, {0.0}) == Code::numeric);
    }
  }
}

TEST_CASE("temperature divides the logits before anything is cut off") {
  const auto all = choices(kLogits, {2.0, 0, 1.0, 0});
  REQUIRE(ids(all) == std::vector<std::int32_t>{1, 2, 4, 0, 3});
  const double sum = std::exp(1.0) + 2 * std::exp(0.5) + 1 + std::exp(-0.5);
  CHECK(all[0].probability == Approx(std::exp(1.0) / sum));
  CHECK(all[4].probability == Approx(std::exp(-0.5) / sum));
}

TEST_CASE("top-k keeps k tokens, the lower id first among equals") {
  CHECK(ids(choices(kLogits, {1.0, 2, 1.0, 0})) == std::vector<std::int32_t>{1, 2});
  CHECK(ids(choices(kLogits, {1.0, 3, 1.0, 0})) == std::vector<std::int32_t>{1, 2, 4});
  CHECK(choices(kLogits, {1.0, 99, 1.0, 0}).size() == 5);
}

TEST_CASE("top-k keeps what a whole sort would, however many, and nothing of logit -infinity") {
  std::vector<float> logits(700);
  RandomStream(3, "logits").normal(logits);
  for (std::size_t i = 0; i < 40; ++i) logits[17 * i] = logits[3]; // equals
  for (std::size_t i = 0; i < 5; ++i) logits[100 * i + 1] = -INFINITY;
  std::vector<std::int32_t> sorted(logits.size());
  std::iota(sorted.begin(), sorted.end(), 0);
  const auto logit = [&](std::int32_t id) { return logits[static_cast<std::size_t>(id)]; };
  std::stable_sort(sorted.begin(), sorted.end(), [&](std::int32_t a, std::int32_t b) { return logit(a) > logit(b); });
  sorted.resize(695);
  for (const std::int64_t k : {std::int64_t{1}, std::int64_t{50}, std::int64_t{256}, std::int64_t{257},
                               std::int64_t{696}, std::int64_t{700}, std::numeric_limits<std::int64_t>::max()}) {
    CAPTURE(k);
    std::vector<std::int32_t> expected = sorted;
    expected.resize(std::min(sorted.size(), static_cast<std::size_t>(k)));
    CHECK(ids(choices(logits, {1.0, k, 1.0, 0})) == expected);
  }
  const std::vector<float> few{-INFINITY, 1, -INFINITY, 2};
  CHECK(ids(choices(few, {1.0, 3, 1.0, 0})) == std::vector<std::int32_t>{3, 1});
}

TEST_CASE("the largest numbers drawn do not fall past many equals to a token that is next to nothing") {
  const RandomStream stream(9, "sample");
  std::uint64_t last = 0; // of the largest number
  for (std::uint64_t index = 0; index < 100'000; ++index)
    if (stream.uniform(index) > stream.uniform(last)) last = index;
  for (const float below : {0.5f, 0.7f, 1.0f, 1.3f}) {
    std::vector<float> logits(150'000, -below);
    logits[0] = -50.0f, logits[1] = 0.0f;
    CHECK(Sampler({1.0, 0, 1.0, 9}).sample(logits, last) > 1);
  }
}

TEST_CASE("temperatures near nothing and beyond measure draw tokens, too") {
  const std::vector<float> logits{-INFINITY, 1, 3, -2};
  for (const double top_p : {1.0, 0.9}) {
    const Sampler cold({1e-300, 0, top_p, 4}), hot({1e300, 0, top_p, 4});
    std::vector<int> counts(logits.size());
    for (std::uint64_t index = 0; index < 300; ++index) {
      CHECK(cold.sample(logits, index) == 2);
      ++counts[static_cast<std::size_t>(hot.sample(logits, index))];
    }
    CHECK(counts[0] == 0);
    for (const std::size_t id : {1, 2, 3}) CHECK(counts[id] > 60);
  }
}

TEST_CASE("top-p keeps the fewest tokens that reach it, of what top-k left, and at least one") {
  // Probabilities of all five: .534 .196 .196 .072 .027 (sum of e^2, 2e, 1, 1/e = 14.19).
  CHECK(ids(choices(kLogits, {1.0, 0, 0.5, 0})) == std::vector<std::int32_t>{1});
  CHECK(ids(choices(kLogits, {1.0, 0, 0.6, 0})) == std::vector<std::int32_t>{1, 2});
  CHECK(ids(choices(kLogits, {1.0, 0, 1e-9, 0})) == std::vector<std::int32_t>{1});
  // After top-k of two, the first already holds .731 of what is left: the order of the two cuts is seen here.
  CHECK(ids(choices(kLogits, {1.0, 2, 0.7, 0})) == std::vector<std::int32_t>{1});
  const auto left = choices(kLogits, {1.0, 0, 0.6, 0});
  CHECK(left[0].probability + left[1].probability == Approx(1.0));
}

TEST_CASE("draws follow the distribution") {
  const SamplingOptions options{1.0, 0, 1.0, 11};
  const Sampler sampler(options);
  const int draws = 20000;
  std::vector<int> counts(kLogits.size());
  for (int i = 0; i < draws; ++i) ++counts[sampler.sample(kLogits, i)];
  double chi2 = 0;
  for (const Choice& one : choices(kLogits, options)) {
    const double expected = one.probability * draws;
    chi2 += (counts[one.id] - expected) * (counts[one.id] - expected) / expected;
  }
  CHECK(chi2 < 18.5); // 4 degrees of freedom, p = 0.001; the stream is fixed, so this never flickers
}

TEST_CASE("what is drawn is where the choices, likeliest first, exceed the number drawn") {
  std::vector<float> logits(700);
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const float spread = seed % 3 == 0 ? 0.01f : seed % 3 == 1 ? 3.0f : 60.0f;
    RandomStream(seed, "logits").normal(logits);
    for (float& logit : logits) logit *= spread;
    for (int i = 0; i < 40; ++i) logits[static_cast<std::size_t>(17 * i)] = logits[3]; // equals
    for (const SamplingOptions& options : {SamplingOptions{1.0, 0, 1.0, seed}, SamplingOptions{0.3, 0, 0.9, seed},
                                           SamplingOptions{2.0, 50, 0.5, seed}, SamplingOptions{1.0, 0, 1e-9, seed}}) {
      CAPTURE(seed, options.temperature, options.top_k, options.top_p);
      const RandomStream stream(seed, "sample");
      for (std::uint64_t index = 0; index < 20; ++index) {
        double left = stream.uniform(index);
        std::int32_t expected = -1;
        for (const Choice& one : choices(logits, options))
          if (left -= one.probability; left < 0 && expected < 0) expected = one.id;
        CHECK(Sampler(options).sample(logits, index) == expected);
      }
    }
  }
}

TEST_CASE("the same seed and index draw the same token, another seed another sequence") {
  const Sampler one({1.0, 0, 1.0, 5}), again({1.0, 0, 1.0, 5}), other({1.0, 0, 1.0, 6});
  int differ = 0;
  for (int i = 0; i < 200; ++i) {
    CHECK(one.sample(kLogits, i) == again.sample(kLogits, i));
    differ += one.sample(kLogits, i) != other.sample(kLogits, i);
  }
  CHECK(differ > 50);
}

TEST_CASE("logits that are not finite are a numeric error, never a token") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const double temperature : {0.0, 1.0}) {
    CHECK(code_of({0, nan, 1}, {temperature}) == Code::numeric);
    CHECK(code_of({0, INFINITY}, {temperature}) == Code::numeric);
    CHECK(code_of({-INFINITY, -INFINITY}, {temperature}) == Code::numeric);
    CHECK(code_of({}, {temperature}) == Code::usage);
  }
}

TEST_CASE("a token of logit -infinity is never drawn") {
  const Sampler sampler({5.0, 0, 1.0, 3});
  for (int i = 0; i < 2000; ++i) CHECK(sampler.sample(std::vector<float>{-INFINITY, 0, -INFINITY, 0.5f}, i) % 2 == 1);
}

TEST_CASE("sampling options out of range are refused by name") {
  CHECK_THROWS_WITH(Sampler({-1.0}), Catch::Contains("temperature"));
  CHECK_THROWS_WITH(Sampler({NAN}), Catch::Contains("temperature"));
  CHECK_THROWS_WITH(Sampler({1.0, -2}), Catch::Contains("top-k"));
  CHECK_THROWS_WITH(Sampler({1.0, 0, 0.0}), Catch::Contains("top-p"));
  CHECK_THROWS_WITH(Sampler({1.0, 0, 1.5}), Catch::Contains("top-p"));
}

} // namespace
} // namespace tenon

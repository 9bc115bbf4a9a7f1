#include "kernels/cpu/routing.hpp"

#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <limits>
#include <numeric>

namespace tenon::cpu {
namespace {

using namespace test;

using Rule = std::int64_t (*)(const Kernels&, const float*, std::int64_t, float, std::int32_t*, float*);

std::int64_t top_1(const Kernels& k, const float* s, std::int64_t n, float t, std::int32_t* e, float* w) {
  return top_k(k, s, n, 1, t, e, w);
}
std::int64_t top_3(const Kernels& k, const float* s, std::int64_t n, float t, std::int32_t* e, float* w) {
  return top_k(k, s, n, 3, t, e, w);
}

// Strengths of all experts, zeros included.
std::vector<double> strengths(Rule rule, Tier tier, const std::vector<float>& scores, float temperature) {
  const auto count = static_cast<std::int64_t>(scores.size());
  std::vector<std::int32_t> experts(scores.size());
  std::vector<float> shares(scores.size());
  const std::int64_t found = rule(kernels_of(tier), scores.data(), count, temperature, experts.data(), shares.data());
  CHECK(std::is_sorted(experts.begin(), experts.begin() + found));
  std::vector<double> out(scores.size(), 0.0);
  for (std::int64_t i = 0; i < found; ++i) {
    CHECK(shares[i] > 0);
    out[experts[i]] = shares[i];
  }
  return out;
}

// From the definition: sorted by falling z, the largest set whose members all have a share; t from that set.
std::vector<double> expected(Rule rule, const std::vector<float>& scores, double temperature) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return scores[a] > scores[b]; });
  const auto z = [&](std::size_t i) { return scores[order[i]] / temperature; };
  std::vector<double> out(scores.size(), 0.0);
  if (rule == top_1 || rule == top_3) {
    double sum = 0;
    const std::size_t k = std::min<std::size_t>(rule == top_1 ? 1 : 3, scores.size());
    for (std::size_t i = 0; i < k; ++i) sum += out[order[i]] = std::exp(z(i) - z(0));
    for (double& share : out) share /= sum;
    return out;
  }
  double sum = 0, squares = 0, t = 0;
  for (std::size_t n = 1; n <= scores.size(); ++n) {
    const double x = rule == sparsemax ? z(n - 1) : z(n - 1) / 2, count = static_cast<double>(n);
    sum += x, squares += x * x;
    const double mean = sum / count, spread = squares - count * mean * mean,
                 next = rule == sparsemax ? (sum - 1) / count : mean - std::sqrt(std::max(0.0, (1 - spread) / count));
    if (x <= next || (rule == entmax15 && spread > 1)) break;
    t = next;
  }
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const double share = std::max((rule == sparsemax ? z(i) : z(i) / 2) - t, 0.0);
    out[order[i]] = rule == sparsemax ? share : share * share;
  }
  return out;
}

constexpr Rule kRules[] = {top_1, top_3, sparsemax, entmax15};

} // namespace

TEST_CASE("strengths are what their definitions say, in every tier, for any number of experts") {
  for (const Tier tier : supported_tiers())
    for (std::size_t rule = 0; rule < std::size(kRules); ++rule)
      for (const std::int64_t count : {1, 2, 7, 16, 33, 1000})
        for (const float temperature : {1.0f, 0.3f, 5.0f}) {
          CAPTURE(tier_name(tier), rule, count, temperature);
          const std::vector<float> scores = noise(count, 7, 4.0f);
          const std::vector<double> found = strengths(kRules[rule], tier, scores, temperature),
                                    right = expected(kRules[rule], scores, temperature);
          CHECK(std::abs(std::accumulate(found.begin(), found.end(), 0.0) - 1.0) <= kTolerance.strengths);
          for (std::int64_t e = 0; e < count; ++e) CHECK(std::abs(found[e] - right[e]) <= kTolerance.strengths);
        }
}

TEST_CASE("equal scores share equally, ties of top-k go to the lower numbers") {
  for (const Tier tier : supported_tiers()) {
    const std::vector<float> scores(50, 2.5f);
    for (const Rule rule : {sparsemax, entmax15})
      for (const double share : strengths(rule, tier, scores, 1.0f)) CHECK(share == Approx(0.02));
    const std::vector<double> found = strengths(top_3, tier, scores, 1.0f);
    for (std::size_t e = 0; e < found.size(); ++e) CHECK(found[e] == Approx(e < 3 ? 1.0 / 3 : 0.0));
  }
}

TEST_CASE("who is excluded has no share, and the others share as if nobody else were there") {
  const float none = -std::numeric_limits<float>::infinity();
  for (const Tier tier : supported_tiers())
    for (const Rule rule : kRules) {
      const std::vector<double> two = strengths(rule, tier, {1.0f, 0.5f}, 1.0f);
      CHECK(strengths(rule, tier, {none, 1.0f, none, none, 0.5f, none}, 1.0f) ==
            std::vector<double>{0.0, two[0], 0.0, 0.0, two[1], 0.0});
      CHECK(strengths(rule, tier, {2.0f, none, none, none}, 1.0f) == std::vector<double>{1.0, 0.0, 0.0, 0.0});
    }
}

TEST_CASE("scores far apart give everything to the best, and nobody gives nothing") {
  for (const Tier tier : supported_tiers())
    for (const Rule rule : kRules) {
      CHECK(strengths(rule, tier, {-1e30f, 1e30f, 0.0f}, 1.0f) == std::vector<double>{0.0, 1.0, 0.0});
      CHECK(strengths(rule, tier, {}, 1.0f).empty());
    }
}

} // namespace tenon::cpu

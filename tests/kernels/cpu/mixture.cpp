#include "kernels/cpu/mixture.hpp"

#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace tenon::cpu {
namespace {

using namespace test;

constexpr std::int64_t kWidth = 64, kInner = 96, kExperts = 5;

struct Experts {
  std::vector<Weights> weights;
  std::vector<FeedForward> experts;

  Experts(PackedFormat format, bool gated) : Experts(format, format, gated) {}
  // of_odd: of the experts with odd numbers.
  Experts(PackedFormat format, PackedFormat of_odd, bool gated) {
    for (std::uint64_t e = 0; e < kExperts; ++e)
      for (std::uint64_t part = 0; part < 3; ++part)
        weights.emplace_back(e % 2 ? of_odd : format, part == 2 ? kWidth : kInner, part == 2 ? kInner : kWidth,
                             noise(kInner * kWidth, 10 * e + part, 0.3f));
    for (std::size_t e = 0; e < kExperts; ++e) {
      FeedForward one{{}, {weights[3 * e + 1].matrix}, {weights[3 * e + 2].matrix}};
      if (gated) one.gate = Linear{weights[3 * e].matrix};
      experts.push_back(one);
    }
  }
};

struct Chosen {
  std::int64_t rows, each;
  std::vector<std::int32_t> experts;
  std::vector<float> strengths, x;

  // Expert 3 is nobody's choice, expert 0 every row's first; every seventh choice is none.
  Chosen(std::int64_t rows, std::int64_t each)
      : rows(rows), each(each), strengths(noise(rows * each, 4)), x(noise(rows * kWidth, 5)) {
    constexpr std::int32_t others[] = {1, 2, 4};
    for (std::int64_t i = 0; i < rows * each; ++i)
      experts.push_back(i % 7 == 6 ? -1 : i % each == 0 ? 0 : others[(i * 5 / 2) % 3]);
  }
  std::vector<float> mixed(const Engine& engine, const Experts& with, std::int64_t first, std::int64_t count) const {
    Arena arena;
    std::vector<float> y(static_cast<std::size_t>(count * kWidth), 9.0f);
    mix(engine, arena, with.experts, {count, each, experts.data() + first * each, strengths.data() + first * each},
        x.data() + first * kWidth, y.data());
    return y;
  }
  std::vector<float> mixed(const Engine& engine, const Experts& with) const { return mixed(engine, with, 0, rows); }

  // Row by row, expert by expert.
  std::vector<float> expected(const Engine& engine, const Experts& with) const {
    std::vector<float> y(static_cast<std::size_t>(rows * kWidth), 0.0f), out(kWidth);
    for (std::int64_t i = 0; i < rows * each; ++i) {
      if (experts[i] < 0) continue;
      const FeedForward& expert = with.experts[experts[i]];
      Arena arena;
      const Rows in = prepare(engine, arena, x.data() + i / each * kWidth, 1, kWidth, {true, true}),
                 inner = multiply_gated(engine, arena, in, expert.gate ? &*expert.gate : nullptr, expert.up,
                                        {true, true}, false);
      const Product down[] = {{&expert.down, out.data()}};
      multiply(engine, arena, inner, down);
      engine.kernels->add_scaled(strengths[i], out.data(), y.data() + i / each * kWidth, kWidth);
    }
    return y;
  }
};

} // namespace

TEST_CASE("a mixture gives every row what its experts say one by one, in every format and tier") {
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats)
      for (const bool gated : {true, false})
        for (const std::int64_t each : {1, 2, 4}) {
          CAPTURE(tier_name(tier), packed_name(format), gated, each);
          Pool pool(2);
          const Engine engine{&kernels_of(tier), &pool};
          const Experts experts(format, gated);
          const Chosen chosen(130, each);
          CHECK(same_bits(chosen.mixed(engine, experts), chosen.expected(engine, experts)));
        }
}

TEST_CASE("a row's mixture is the same bits whatever the threads and the rows beside it") {
  Pool alone(1), several(3);
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats) {
      CAPTURE(tier_name(tier), packed_name(format));
      const Experts experts(format, true);
      const Chosen chosen(210, 2);
      const std::vector<float> all = chosen.mixed({&kernels_of(tier), &several}, experts);
      CHECK(same_bits(all, chosen.mixed({&kernels_of(tier), &alone}, experts)));
      for (const std::int64_t count : {1, 5, 40}) {
        const std::vector<float> expected(all.begin() + 9 * kWidth, all.begin() + (9 + count) * kWidth);
        CHECK(same_bits(chosen.mixed({&kernels_of(tier), &several}, experts, 9, count), expected));
      }
    }
}

TEST_CASE("every row chooses its best experts, weighed by a softmax over their scores, whatever the threads") {
  constexpr std::int64_t rows = 50, experts = 7, active = 3;
  const std::vector<float> weights = noise(experts * kWidth, 8), x = noise(rows * kWidth, 9);
  Pool alone(1), several(3);
  for (const Tier tier : supported_tiers()) {
    CAPTURE(tier_name(tier));
    Arena arena, other;
    const MixtureRouter router{weights.data(), experts, kWidth, active};
    const Choices found = choose({&kernels_of(tier), &several}, arena, router, x.data(), rows),
                  again = choose({&kernels_of(tier), &alone}, other, router, x.data() + 20 * kWidth, 1);
    for (std::int64_t t = 0; t < rows; ++t) {
      std::vector<std::pair<double, std::int32_t>> score(experts);
      for (std::int32_t e = 0; e < experts; ++e) {
        for (std::int64_t c = 0; c < kWidth; ++c) score[e].first -= double{weights[e * kWidth + c]} * x[t * kWidth + c];
        score[e].second = e;
      }
      std::sort(score.begin(), score.end());
      double sum = 0.0;
      for (std::int64_t i = 0; i < active; ++i) sum += std::exp(-score[i].first);
      std::sort(score.begin(), score.begin() + active, [](auto a, auto b) { return a.second < b.second; });
      for (std::int64_t i = 0; i < active; ++i) {
        CHECK(found.experts[t * active + i] == score[i].second);
        CHECK(found.strengths[t * active + i] ==
              Approx(std::exp(-score[i].first) / sum).epsilon(kTolerance.mixture_strengths));
      }
    }
    for (std::int64_t i = 0; i < active; ++i) {
      CHECK(again.experts[i] == found.experts[20 * active + i]);
      CHECK(again.strengths[i] == found.strengths[20 * active + i]);
    }
  }
}

TEST_CASE("experts of unlike formats are mixed, too") {
  Pool pool(2);
  for (const Tier tier : supported_tiers()) {
    CAPTURE(tier_name(tier));
    const Engine engine{&kernels_of(tier), &pool};
    const Experts experts(PackedFormat::bf16, PackedFormat::int8g32, true);
    const Chosen chosen(70, 2);
    CHECK(same_bits(chosen.mixed(engine, experts), chosen.expected(engine, experts)));
  }
}

TEST_CASE("an expert too far behind for a share is no choice") {
  Pool pool(1);
  std::vector<float> weights(3 * kWidth, 0.0f), x(kWidth, 0.0f);
  weights[kWidth] = 200.0f, weights[2 * kWidth] = -1.0f, x[0] = 1.0f; // scores 0, 200, -1
  for (const Tier tier : supported_tiers()) {
    Arena arena;
    const Choices found = choose({&kernels_of(tier), &pool}, arena, {weights.data(), 3, kWidth, 2}, x.data(), 1);
    CHECK(found.experts[0] == 1);
    CHECK(found.strengths[0] == 1.0f);
    CHECK(found.experts[1] == -1);
  }
}

TEST_CASE("a row that is not finite gets strengths that are not, and its neighbours theirs") {
  Pool pool(1);
  const std::vector<float> weights = noise(4 * kWidth, 8);
  std::vector<float> x = noise(2 * kWidth, 9);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  Arena arena;
  const Choices found =
      choose({&kernels_of(supported_tiers().back()), &pool}, arena, {weights.data(), 4, kWidth, 2}, x.data(), 2);
  CHECK(std::isnan(found.strengths[0]));
  CHECK(found.strengths[2] + found.strengths[3] == Approx(1.0));
}

TEST_CASE("rows that chose nothing are zeros, and no rows are nothing") {
  Pool pool(1);
  const Engine engine{&kernels_of(supported_tiers().back()), &pool};
  const Experts experts(PackedFormat::bf16, true);
  Chosen chosen(3, 2);
  std::fill(chosen.experts.begin(), chosen.experts.end(), -1);
  CHECK(chosen.mixed(engine, experts) == std::vector<float>(3 * kWidth, 0.0f));
  CHECK(chosen.mixed(engine, experts, 0, 0).empty());
}

} // namespace tenon::cpu

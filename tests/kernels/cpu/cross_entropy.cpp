#include "kernels/cpu/cross_entropy.hpp"

#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <limits>

namespace tenon::cpu {
namespace {

using namespace test;

struct Expected {
  double loss;
  std::vector<double> gradient;
};

// From the definition, in double precision.
Expected expected(const std::vector<float>& row, std::int64_t target) {
  double largest = -std::numeric_limits<double>::infinity(), sum = 0.0;
  for (const float x : row) largest = std::max<double>(largest, x);
  for (const float x : row) sum += std::exp(x - largest);
  Expected out{std::log(sum) + largest - row[target], {}};
  for (const float x : row) out.gradient.push_back(std::exp(x - largest) / sum);
  out.gradient[target] -= 1.0;
  return out;
}

} // namespace

TEST_CASE("cross-entropy of a row and its gradient are those of the definition, in every tier and length") {
  const Tier tier = GENERATE(from_range(supported_tiers()));
  for (const std::int64_t count : {1, 2, 63, 64, 65, 1000, 49152})
    for (const float scale : {0.01f, 5.0f, 80.0f})
      for (const std::int64_t target : {std::int64_t{0}, count / 2, count - 1}) {
        std::vector<float> row = noise(count, static_cast<std::uint64_t>(count), scale),
                           scratch(static_cast<std::size_t>(cross_entropy_scratch(count)));
        std::vector<std::uint16_t> narrow(row.size());
        kernels_of(tier).round(row.data(), count, narrow.data());
        std::vector<float> rounded;
        for (const std::uint16_t bits : narrow) rounded.push_back(nn::bf16_to_f32(bits));

        const Expected exact = expected(row, target), coarse = expected(rounded, target);
        CAPTURE(tier_name(tier), count, scale, target);
        const float loss = cross_entropy_row(kernels_of(tier), row.data(), count, target, scratch.data());
        CHECK(std::abs(loss - exact.loss) <= kTolerance.loss * std::max(1.0, exact.loss));
        Worst worst, coarsest;
        for (std::int64_t i = 0; i < count; ++i) worst.see(std::abs(row[i] - exact.gradient[i]));
        CHECK(worst <= kTolerance.loss);

        const float of_narrow = cross_entropy_row(kernels_of(tier), narrow.data(), count, target, scratch.data());
        CHECK(std::abs(of_narrow - coarse.loss) <= kTolerance.loss * std::max(1.0, coarse.loss));
        for (std::int64_t i = 0; i < count; ++i)
          coarsest.see(std::abs(nn::bf16_to_f32(narrow[i]) - coarse.gradient[i]));
        CHECK(coarsest <= kTolerance.narrow_gradient + kTolerance.loss);
      }
}

TEST_CASE("cross-entropy of a row that holds no number says so") {
  std::vector<float> row = noise(100, 1), scratch(128);
  row[7] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(cross_entropy_row(kernels_of(Tier::reference), row.data(), 100, 3, scratch.data())));
}

} // namespace tenon::cpu

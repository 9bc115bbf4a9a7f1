// Rows as a whole: norms, rotation, sums and peaks, in every tier against their formulas in double precision.
#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

namespace tenon::cpu {
namespace {

using namespace test;

constexpr std::int64_t kRows = 3;
constexpr double kEps = 1e-5;

template <class Each>
void for_widths(const Each& each) {
  for (const Tier tier : supported_tiers())
    for (const std::int64_t width : {1, 2, 15, 16, 17, 31, 64, 70, 300}) {
      CAPTURE(tier_name(tier), width);
      each(kernels_of(tier).rows, width);
    }
}

// y against the formula's `exact`, relative to the largest number of its row.
void check_rows(const std::vector<float>& y, const std::vector<double>& exact, std::int64_t width) {
  Worst worst;
  for (std::size_t row = 0; row < exact.size(); row += static_cast<std::size_t>(width)) {
    double largest = 1e-30;
    for (std::int64_t i = 0; i < width; ++i) largest = std::max(largest, std::abs(exact[row + i]));
    for (std::int64_t i = 0; i < width; ++i) worst.see(std::abs(y[row + i] - exact[row + i]) / largest);
  }
  CHECK(worst < kTolerance.elementwise);
}

double mean_of(const float* x, std::int64_t width, double less, int power) {
  double sum = 0;
  for (std::int64_t i = 0; i < width; ++i) sum += std::pow(x[i] - less, power);
  return sum / static_cast<double>(width);
}

} // namespace

TEST_CASE("rows under either norm are those of double precision in every tier and width") {
  for_widths([](const RowKernels& rows, std::int64_t width) {
    const std::vector<float> x = noise(kRows * width, 1, 3.0f), weight = noise(width, 2), bias = noise(width, 3);
    std::vector<float> rms(x.size()), layer(x.size());
    rows.rms_norm(x.data(), weight.data(), rms.data(), kRows, width, kEps);
    rows.layer_norm(x.data(), weight.data(), bias.data(), layer.data(), kRows, width, kEps);
    std::vector<double> exact_rms, exact_layer;
    for (std::int64_t row = 0; row < kRows; ++row) {
      const float* from = x.data() + row * width;
      const double size = std::sqrt(mean_of(from, width, 0.0, 2) + kEps), mean = mean_of(from, width, 0.0, 1),
                   deviation = std::sqrt(mean_of(from, width, mean, 2) + kEps);
      for (std::int64_t i = 0; i < width; ++i) {
        exact_rms.push_back(from[i] / size * weight[i]);
        exact_layer.push_back((from[i] - mean) / deviation * weight[i] + bias[i]);
      }
    }
    check_rows(rms, exact_rms, width);
    if (width > 2) check_rows(layer, exact_layer, width); // of fewer the mean leaves little but its own rounding
    std::vector<float> in_place = x;
    rows.rms_norm(in_place.data(), weight.data(), in_place.data(), kRows, width, kEps);
    CHECK(same_bits(in_place, rms));
  });
}

TEST_CASE("heads turn by the angles of their rows in every tier") {
  for_widths([](const RowKernels& rows, std::int64_t half) {
    const std::int64_t heads = 2, depth = 2 * half;
    const std::vector<float> before = noise(kRows * heads * depth, 1);
    std::vector<float> x = before, cos, sin;
    for (const float angle : noise(kRows * half, 2, 3.0f))
      cos.push_back(std::cos(angle)), sin.push_back(std::sin(angle));
    rows.rotate(x.data(), cos.data(), sin.data(), kRows, heads, depth);
    std::vector<double> exact(x.size());
    for (std::int64_t at = 0; at < kRows * heads; ++at)
      for (std::int64_t i = 0; i < half; ++i) {
        const double c = cos[at / heads * half + i], s = sin[at / heads * half + i];
        const double first = before[at * depth + i], second = before[at * depth + half + i];
        exact[at * depth + i] = first * c - second * s;
        exact[at * depth + half + i] = second * c + first * s;
      }
    check_rows(x, exact, depth);
  });
}

TEST_CASE("a row's sum, its peak and its numbers in bfloat16 are exact in every tier") {
  for_widths([](const RowKernels& rows, std::int64_t width) {
    std::vector<float> x = noise(width, 1);
    double sum = 0;
    for (const float one : x) sum += one;
    CHECK(std::abs(rows.sum(x.data(), width) - sum) <= kTolerance.row_sum);

    const std::int64_t place = std::max_element(x.begin(), x.end()) - x.begin();
    CHECK(rows.peak(x.data(), width).place == place);
    CHECK(rows.peak(x.data(), width).numbers);
    x[static_cast<std::size_t>(width - 1)] = std::numeric_limits<float>::quiet_NaN();
    CHECK_FALSE(rows.peak(x.data(), width).numbers);

    std::vector<std::uint16_t> narrow;
    std::vector<float> expected;
    for (const float one : noise(width, 2)) {
      narrow.push_back(nn::f32_to_bf16(one));
      expected.push_back(nn::bf16_to_f32(narrow.back()));
    }
    std::vector<float> wide(expected.size());
    rows.widen(narrow.data(), wide.data(), width);
    CHECK(same_bits(wide, expected));
    rows.scale(wide.data(), 0.5f, width);
    for (float& one : expected) one *= 0.5f;
    CHECK(same_bits(wide, expected));
  });
}

} // namespace tenon::cpu

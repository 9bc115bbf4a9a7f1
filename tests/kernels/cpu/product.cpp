#include "kernels/cpu/product.hpp"

#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace tenon::cpu {
namespace {

using namespace test;

struct Shape {
  std::int64_t rows, outputs, inputs;
};

std::vector<float> product(const Engine& engine, const Linear& linear, const std::vector<float>& x, std::int64_t rows) {
  Arena arena;
  std::vector<float> y(static_cast<std::size_t>(rows * linear.outputs()));
  const Rows in = prepare(engine, arena, x.data(), rows, linear.inputs(), Forms() |= linear);
  const Product one[] = {{&linear, y.data()}};
  multiply(engine, arena, in, one);
  return y;
}

// The largest error, relative to the sum of the absolute values of the terms.
double error(const Kernels& kernels, const Weights& weights, const std::vector<float>& x, std::int64_t rows) {
  Pool pool(1);
  const Engine engine{&kernels, &pool};
  const Linear linear{weights.matrix};
  const std::vector<float> y = product(engine, linear, x, rows);
  Arena arena;
  const Rows in = prepare(engine, arena, x.data(), rows, linear.inputs(), Forms() |= linear);
  Worst worst;
  for (std::int64_t f = 0; f < linear.outputs(); ++f) {
    const std::vector<float> w = weights.row(f);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::vector<double> a = seen(in, r, weights.matrix.format);
      double sum = 0, size = 1e-300;
      for (std::size_t c = 0; c < a.size(); ++c) sum += a[c] * w[c], size += std::abs(a[c] * w[c]);
      worst.see(std::abs(y[r * linear.outputs() + f] - sum) / size);
    }
  }
  return worst;
}

const Kernels& reference() { return kernels_of(Tier::reference); }

} // namespace

TEST_CASE("every tier multiplies every format as a double-precision sum does") {
  const Shape shapes[] = {{1, 64, 32},   {1, 1, 64},    {2, 65, 96},   {3, 63, 32},
                          {7, 130, 576}, {13, 192, 64}, {100, 70, 320}};
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats)
      for (const Shape& s : shapes) {
        CAPTURE(tier_name(tier), packed_name(format), s.rows, s.outputs, s.inputs);
        const Weights weights(format, s.outputs, s.inputs, noise(s.outputs * s.inputs, 3, 0.1f));
        const double found = error(kernels_of(tier), weights, noise(s.rows * s.inputs, 4), s.rows);
        CHECK(found < (reads_bf16(format) ? kTolerance.bf16 : kTolerance.integers));
      }
}

TEST_CASE("bfloat16 weights take any number of inputs") {
  for (const Tier tier : supported_tiers())
    for (const std::int64_t inputs : {1, 2, 3, 31, 575, 1031}) {
      CAPTURE(tier_name(tier), inputs);
      const Weights weights(PackedFormat::bf16, 67, inputs, noise(67 * inputs, 5));
      for (const std::int64_t rows : {2, 9})
        CHECK(error(kernels_of(tier), weights, noise(rows * inputs, 6), rows) < kTolerance.bf16);
    }
}

TEST_CASE("no inputs give zeros, no rows and no outputs give nothing") {
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats) {
      Pool pool(2);
      const Engine engine{&kernels_of(tier), &pool};
      const Weights no_inputs(format, 5, 0, {}), no_outputs(format, 0, 32, {}), some(format, 5, 32, noise(160, 1));
      CHECK(product(engine, {no_inputs.matrix}, {}, 2) == std::vector<float>(10, 0.0f));
      CHECK(product(engine, {no_outputs.matrix}, noise(64, 1), 2).empty());
      CHECK(product(engine, {some.matrix}, {}, 0).empty());
    }
}

TEST_CASE("rows and results may lie anywhere: one number further on, the same bits") {
  constexpr std::int64_t outputs = 70, inputs = 96;
  Pool pool(1);
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats)
      for (const std::int64_t rows : {1, 9, 100}) {
        CAPTURE(tier_name(tier), packed_name(format), rows);
        const Engine engine{&kernels_of(tier), &pool};
        const Weights weights(format, outputs, inputs, noise(outputs * inputs, 21));
        const Linear linear{weights.matrix};
        const std::vector<float> x = noise(rows * inputs, 22), expected = product(engine, linear, x, rows);
        std::vector<float> further(x.size() + 1), y(expected.size() + 1);
        std::copy(x.begin(), x.end(), further.begin() + 1);
        Arena arena;
        const Rows in = prepare(engine, arena, further.data() + 1, rows, inputs, Forms() |= linear);
        const Product one[] = {{&linear, y.data() + 1}};
        multiply(engine, arena, in, one);
        CHECK(same_bits(expected, std::vector<float>(y.begin() + 1, y.end())));
      }
}

TEST_CASE("integer formats give the same bits in every tier, at the extremes too") {
  constexpr std::int64_t inputs = 672, outputs = 66, rows = 13; // more than a block of groups, and than few rows
  std::vector<float> extreme(outputs * inputs), x(rows * inputs);
  for (std::size_t i = 0; i < extreme.size(); ++i) extreme[i] = i % 3 == 0 ? -1.0f : 1.0f;
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = i % 5 == 0 ? -1.0f : 1.0f;
  // All of a group's products at their largest, of one sign; one weight apart, so that int4's steps go from end to end.
  std::vector<float> highest(outputs * inputs, 1.0f);
  for (std::size_t i = 0; i < highest.size(); i += kGroup) highest[i] = -1.0f;
  const std::vector<float> ones(rows * inputs, 1.0f), minus_ones(rows * inputs, -1.0f);
  Pool pool(1);
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : {PackedFormat::int8g32, PackedFormat::int4g32, PackedFormat::int4g32m}) {
      CAPTURE(tier_name(tier), packed_name(format));
      const Weights weights(format, outputs, inputs, extreme),
          others(format, outputs, inputs, noise(outputs * inputs, 8)), most(format, outputs, inputs, highest);
      for (const Weights* one : {&weights, &others, &most})
        for (const std::vector<float>& rows_of : {x, noise(rows * inputs, 9), ones, minus_ones})
          CHECK(same_bits(product({&kernels_of(tier), &pool}, {one->matrix}, rows_of, rows),
                          product({&reference(), &pool}, {one->matrix}, rows_of, rows)));
    }
}

TEST_CASE("a row's results are the same bits whatever the threads and the rows beside it") {
  constexpr std::int64_t outputs = 200, rows = 203;
  Pool alone(1), several(3);
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats)
      for (const std::int64_t inputs : {640, 1056}) { // panels that are asked for ahead, and some that need not be
        CAPTURE(tier_name(tier), packed_name(format), inputs);
        const std::vector<float> x = noise(rows * inputs, 11);
        const Weights weights(format, outputs, inputs, noise(outputs * inputs, 12));
        const Linear linear{weights.matrix};
        const std::vector<float> all = product({&kernels_of(tier), &several}, linear, x, rows);
        CHECK(same_bits(all, product({&kernels_of(tier), &alone}, linear, x, rows)));
        for (const std::int64_t count : {1, 2, 3, 4, 5, 6, 7, 12, 97}) {
          const std::vector<float> some(x.begin() + 3 * inputs, x.begin() + (3 + count) * inputs);
          const std::vector<float> expected(all.begin() + 3 * outputs, all.begin() + (3 + count) * outputs);
          CHECK(same_bits(product({&kernels_of(tier), &several}, linear, some, count), expected));
        }
      }
}

TEST_CASE("a few rows of a wide matrix, of which every thread takes several runs, are the products of one thread") {
  constexpr std::int64_t inputs = 32, outputs = 3 * 16 * kPanel + 70, rows = 12;
  const std::vector<float> x = noise(rows * inputs, 13);
  const Weights weights(PackedFormat::int8g32, outputs, inputs, noise(outputs * inputs, 14));
  Pool alone(1), several(3);
  for (const std::int64_t count : {std::int64_t{1}, rows}) {
    const std::vector<float> some(x.begin(), x.begin() + count * inputs);
    CHECK(same_bits(product({&reference(), &several}, {weights.matrix}, some, count),
                    product({&reference(), &alone}, {weights.matrix}, some, count)));
  }
}

TEST_CASE(
    "rows in two parts lose a hundredth of what rounding to int8 loses, whatever the threads and the rows beside") {
  constexpr std::int64_t inputs = 640, outputs = 200, rows = 101;
  const std::vector<float> x = noise(rows * inputs, 15);
  Pool alone(1), several(3);
  const auto finely = [&](const Engine& engine, const Weights& weights, std::int64_t first, std::int64_t count) {
    Arena arena;
    const Linear linear{weights.matrix};
    std::vector<float> y(static_cast<std::size_t>(count * outputs));
    const Product one[] = {{&linear, y.data()}};
    multiply(engine, arena, prepare_finely(engine, arena, x.data() + first * inputs, count, inputs), one);
    return y;
  };
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : {PackedFormat::int8g32, PackedFormat::int4g32, PackedFormat::int4g32m}) {
      CAPTURE(tier_name(tier), packed_name(format));
      const Weights weights(format, outputs, inputs, noise(outputs * inputs, 16));
      const Engine one{&kernels_of(tier), &alone}, many{&kernels_of(tier), &several};
      const std::vector<float> fine = finely(many, weights, 0, rows), plain = product(many, {weights.matrix}, x, rows);
      Worst finely_off, off;
      for (std::int64_t f = 0; f < outputs; ++f) {
        const std::vector<float> w = weights.row(f);
        for (std::int64_t r = 0; r < rows; ++r) {
          double sum = 0;
          for (std::int64_t c = 0; c < inputs; ++c) sum += static_cast<double>(x[r * inputs + c]) * w[c];
          finely_off.see(std::abs(fine[r * outputs + f] - sum)), off.see(std::abs(plain[r * outputs + f] - sum));
        }
      }
      CHECK(finely_off < kTolerance.two_parts * off);
      for (const std::int64_t count : {1, 2, 3, 5, 8, 12, 97}) {
        const std::vector<float> expected(fine.begin() + 3 * outputs, fine.begin() + (3 + count) * outputs);
        CHECK(same_bits(finely(one, weights, 3, count), expected));
        CHECK(same_bits(finely(many, weights, 3, count), expected));
      }
    }
}

TEST_CASE("of rows in two parts zeros and numbers too small for a step are nothing, and what is not finite is seen") {
  constexpr std::int64_t inputs = 64, outputs = 70, rows = 4;
  const float infinite = std::numeric_limits<float>::infinity();
  Pool alone(1);
  std::vector<float> x(rows * inputs, 0.0f);
  std::fill_n(x.begin() + inputs, inputs, 1e-30f), std::fill_n(x.begin() + 2 * inputs, inputs, 1e-38f);
  x[3 * inputs + 40] = infinite;
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : {PackedFormat::int8g32, PackedFormat::int4g32m}) {
      CAPTURE(tier_name(tier), packed_name(format));
      const Weights weights(format, outputs, inputs, noise(outputs * inputs, 17));
      const Engine engine{&kernels_of(tier), &alone};
      const Linear linear{weights.matrix};
      Arena arena;
      std::vector<float> y(rows * outputs);
      const Product one[] = {{&linear, y.data()}};
      multiply(engine, arena, prepare_finely(engine, arena, x.data(), rows, inputs), one);
      for (std::int64_t i = 0; i < 3 * outputs; ++i) CHECK(std::abs(y[static_cast<std::size_t>(i)]) == 0.0f);
      for (std::int64_t i = 3 * outputs; i < rows * outputs; ++i) CHECK(std::isnan(y[static_cast<std::size_t>(i)]));
    }
}

TEST_CASE("every tier rounds to the same bfloat16, at ties, at the ends and where there is no number") {
  std::vector<float> x = noise(1000, 5);
  for (const std::uint32_t bits : {0x3f808000u, 0x3f818000u, 0x3f808001u, 0x3f807fffu, 0x7f7fffffu, 0xff7fffffu,
                                   0x7f800000u, 0x7fc00001u, 0x7f800001u, 0x80000000u, 0x00000001u, 0x00018000u})
    x.push_back(std::bit_cast<float>(bits));
  for (const Tier tier : supported_tiers()) {
    CAPTURE(tier_name(tier));
    std::vector<std::uint16_t> found(x.size());
    kernels_of(tier).round(x.data(), static_cast<std::int64_t>(x.size()), found.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      CAPTURE(i, x[i]);
      if (std::isnan(x[i]))
        CHECK(std::isnan(nn::bf16_to_f32(found[i])));
      else if (std::fpclassify(x[i]) != FP_SUBNORMAL) // AVX-512's instruction takes those for zeros
        CHECK(found[i] == nn::f32_to_bf16(x[i]));
    }
  }
}

TEST_CASE("rows that are not finite never look finite") {
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats)
      for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
        CAPTURE(tier_name(tier), packed_name(format), bad);
        Pool pool(1);
        const Weights weights(format, 3, 64, noise(3 * 64, 2));
        std::vector<float> x = noise(64, 3);
        x[40] = bad;
        for (const float y : product({&kernels_of(tier), &pool}, {weights.matrix}, x, 1)) CHECK_FALSE(std::isfinite(y));
      }
}

TEST_CASE("tiny and huge rows keep their relative error") {
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats)
      for (const float scale : {1e-25f, 1e-10f, 1e10f, 1e30f}) {
        CAPTURE(tier_name(tier), packed_name(format), scale);
        const Weights weights(format, 64, 64, noise(64 * 64, 2));
        const double found = error(kernels_of(tier), weights, noise(2 * 64, 3, scale), 2);
        CHECK(found < (reads_bf16(format) ? kTolerance.bf16 : kTolerance.integers));
      }
}

TEST_CASE("bias, low-rank change and adding to what stands there") {
  constexpr std::int64_t rows = 5, inputs = 64, outputs = 100, rank = 3;
  const std::vector<float> w = noise(outputs * inputs, 1), x = noise(rows * inputs, 2), bias = noise(outputs, 3),
                           a = noise(rank * inputs, 4), b = noise(rank * outputs, 5);
  for (const Tier tier : supported_tiers()) {
    CAPTURE(tier_name(tier));
    Pool pool(2);
    const Engine engine{&kernels_of(tier), &pool};
    const Weights weights(PackedFormat::bf16, outputs, inputs, w);
    const Linear plain{weights.matrix}, full{weights.matrix, bias.data(), {rank, 0.5f, a.data(), b.data()}};
    const std::vector<float> without = product(engine, plain, x, rows);
    Arena arena;
    std::vector<float> y(rows * outputs, 10.0f);
    const Product one[] = {{&full, y.data(), true}};
    multiply(engine, arena, prepare(engine, arena, x.data(), rows, inputs, {true, false}), one);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t f = 0; f < outputs; ++f) {
        double more = 0;
        for (std::int64_t k = 0; k < rank; ++k) {
          double t = 0;
          for (std::int64_t c = 0; c < inputs; ++c) t += static_cast<double>(a[k * inputs + c]) * x[r * inputs + c];
          more += 0.5 * t * b[k * outputs + f];
        }
        const double expected = 10.0 + without[r * outputs + f] + bias[f] + more;
        CHECK(std::abs(y[r * outputs + f] - expected) <= kTolerance.changed);
      }
  }
}

TEST_CASE("the gated product is silu(gate x) up x, and without a gate gelu(up x)") {
  constexpr std::int64_t rows = 7, inputs = 64, outputs = 96;
  const std::vector<float> x = noise(rows * inputs, 2);
  for (const Tier tier : supported_tiers()) {
    CAPTURE(tier_name(tier));
    Pool pool(2);
    const Engine engine{&kernels_of(tier), &pool};
    const Weights g(PackedFormat::bf16, outputs, inputs, noise(outputs * inputs, 5)),
        u(PackedFormat::int8g32, outputs, inputs, noise(outputs * inputs, 6));
    const Linear gate{g.matrix}, up{u.matrix};
    const std::vector<float> a = product(engine, gate, x, rows), b = product(engine, up, x, rows);
    Arena arena;
    const Rows in = prepare(engine, arena, x.data(), rows, inputs, {true, true});
    const Rows gated = multiply_gated(engine, arena, in, &gate, up, {true, true}, true),
               curved = multiply_gated(engine, arena, in, nullptr, up, {}, true);
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double expected = a[i] / (1 + std::exp(-static_cast<double>(a[i]))) * b[i], v = b[i];
      CHECK(gated.x[i] == Approx(expected).epsilon(kTolerance.activation).margin(kTolerance.smallest_activation));
      CHECK(gated.bf16[i] == nn::f32_to_bf16(gated.x[i]));
      CHECK(curved.x[i] == Approx(0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))))
                               .epsilon(kTolerance.gelu)
                               .margin(kTolerance.smallest_activation));
    }
  }
}

} // namespace tenon::cpu

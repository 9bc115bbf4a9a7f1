#include "kernels/cpu/short_exponents.hpp"

#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

namespace tenon::cpu {
namespace {

using namespace test;

constexpr std::int64_t kRows = 67, kInputs = 97; // no whole panel, and an odd last input

// Weights of which some are zeros, some far smaller and some far larger than the others.
std::vector<float> uneven() {
  std::vector<float> w = noise(kRows * kInputs, 1, 0.05f);
  w[0] = 0.0f, w[1] = -0.0f, w[2] = 3e-20f, w[100] = 1e30f, w[6000] = -2e-9f, w[6400] = -1e20f;
  for (float& one : w) one = nn::bf16_to_f32(nn::f32_to_bf16(one));
  return w;
}

} // namespace

TEST_CASE("short exponents hold bfloat16 bit for bit, outliers and zeros of both signs too, in 0.8 of the bytes") {
  const std::vector<float> w = uneven();
  REQUIRE(shortest_bf16(kRows, kInputs, w) == PackedFormat::bf16e4);
  const Weights weights(PackedFormat::bf16e4, kRows, kInputs, w);
  for (std::int64_t r = 0; r < kRows; ++r)
    CHECK(same_bits(weights.row(r), {w.begin() + r * kInputs, w.begin() + (r + 1) * kInputs}));
  CHECK(packed_bytes(PackedFormat::bf16e4, 576, 576).value() <
        packed_bytes(PackedFormat::bf16, 576, 576).value() * 4 / 5);
}

TEST_CASE("weights of very many exponents keep the plain form, and packing them short is refused") {
  std::vector<float> w(64 * 64);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = std::ldexp(1.0f, static_cast<int>(i % 60) - 30);
  CHECK(shortest_bf16(64, 64, w) == PackedFormat::bf16);
  std::vector<std::byte> out(packed_bytes(PackedFormat::bf16e4, 64, 64).value());
  CHECK_THROWS_WITH(pack(PackedFormat::bf16e4, 64, 64, w, out), Catch::Contains("exponents"));
}

TEST_CASE("every tier multiplies by outliers as by other weights, for one row and for many") {
  const std::vector<float> w = uneven();
  const Weights weights(PackedFormat::bf16e4, kRows, kInputs, w);
  Pool pool(2);
  for (const Tier tier : supported_tiers())
    for (const std::int64_t rows : {1, 2, 5, 6, 7, 40}) {
      CAPTURE(tier_name(tier), rows);
      const Engine engine{&kernels_of(tier), &pool};
      const std::vector<float> x = noise(rows * kInputs, 2);
      Arena arena;
      const Linear linear{weights.matrix};
      const Rows prepared = prepare(engine, arena, x.data(), rows, kInputs, Forms() |= linear);
      std::vector<float> y(static_cast<std::size_t>(rows * kRows));
      const Product product{&linear, y.data()};
      multiply(engine, arena, prepared, {&product, 1});
      Worst worst;
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::vector<double> row = seen(prepared, r, PackedFormat::bf16e4);
        for (std::int64_t f = 0; f < kRows; ++f) {
          double sum = 0, size = 0;
          for (std::int64_t c = 0; c < kInputs; ++c)
            sum += row[c] * w[f * kInputs + c], size += std::abs(row[c] * w[f * kInputs + c]);
          worst.see(std::abs(y[r * kRows + f] - sum) / size);
        }
      }
      CHECK(worst < kTolerance.bf16);
    }
}

TEST_CASE("a panel with more outliers than there is room for, and of places that there are not, is read no further") {
  const Weights weights(PackedFormat::bf16e4, 64, 32, noise(64 * 32, 1));
  Arena arena;
  const std::size_t bytes = packed_bytes(PackedFormat::bf16e4, 64, 32).value();
  auto* broken = arena.take<std::byte>(static_cast<std::int64_t>(bytes));
  std::memcpy(broken, weights.matrix.bytes, bytes);
  std::memset(broken + 16, 0xff, 2);
  const Outlier nowhere[] = {{0xffffffff, 5, 0x4000}, {3, 64, 0x4000}, {32, 63, 0x4000}, {0xffffffff, 0xffff, 0x4000}};
  for (std::int64_t i = 0; i < outliers_held(32); ++i)
    std::memcpy(broken + 64 + 8 * i, &nowhere[i % 4], sizeof(Outlier));
  const PackedMatrix matrix{PackedFormat::bf16e4, 64, 32, broken};
  std::vector<float> row(32);
  for (std::int64_t r = 0; r < 64; ++r) {
    unpack_row(matrix, r, row);
    CHECK(same_bits(row, weights.row(r)));
  }
  Pool pool(1);
  const std::vector<float> x = noise(40 * 32, 2);
  for (const Tier tier : supported_tiers())
    for (const std::int64_t rows : {1, 7, 40}) {
      CAPTURE(tier_name(tier), rows);
      const Engine engine{&kernels_of(tier), &pool};
      std::vector<float> found(static_cast<std::size_t>(rows * 64)), whole(found);
      const Linear of_broken{matrix}, of_whole{weights.matrix};
      const Rows prepared = prepare(engine, arena, x.data(), rows, 32, Forms() |= of_whole);
      const Product broken_product{&of_broken, found.data()}, whole_product{&of_whole, whole.data()};
      multiply(engine, arena, prepared, {&broken_product, 1});
      multiply(engine, arena, prepared, {&whole_product, 1});
      CHECK(same_bits(found, whole));
    }
}

} // namespace tenon::cpu

#include "kernels/cpu/packed_matrix.hpp"

#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

namespace tenon::cpu {
namespace {

using namespace test;

std::vector<std::byte> random_blocks(nn::BlockType type, std::int64_t rows, std::int64_t inputs) {
  const std::size_t bytes = *nn::row_bytes(type, static_cast<std::size_t>(inputs)) * static_cast<std::size_t>(rows);
  std::vector<std::byte> out(bytes);
  std::uint64_t seed = 5;
  for (std::byte& byte : out) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    byte = std::byte(seed >> 56);
  }
  return out;
}

} // namespace

TEST_CASE("stored blocks are packed without loss: every weight comes back bit for bit") {
  constexpr std::int64_t rows = 67, inputs = 96;
  for (const nn::BlockType type :
       {nn::BlockType::Q8_0, nn::BlockType::Q4_0, nn::BlockType::Q4_1, nn::BlockType::BF16}) {
    CAPTURE(nn::block_name(type));
    const std::vector<std::byte> blocks = random_blocks(type, rows, inputs);
    std::vector<float> expected(rows * inputs), found(inputs);
    nn::dequantise(type, blocks, expected);
    const PackedFormat format = lossless_format(type).value();
    std::vector<std::byte> packed(packed_bytes(format, rows, inputs).value());
    pack_blocks(format, type, rows, inputs, blocks, packed);
    for (std::int64_t r = 0; r < rows; ++r) {
      unpack_row({format, rows, inputs, packed.data()}, r, found);
      for (std::int64_t c = 0; c < inputs; ++c) {
        const float a = expected[r * inputs + c];
        if (!(found[c] == a || (std::isnan(found[c]) && std::isnan(a)))) FAIL("row " << r << " input " << c);
      }
    }
  }
}

TEST_CASE("other stored types have no packed form without loss") {
  for (const nn::BlockType type : {nn::BlockType::F32, nn::BlockType::F16, nn::BlockType::Q5_0, nn::BlockType::Q6_K})
    CHECK_FALSE(lossless_format(type));
}

TEST_CASE("float32 weights are rounded to the nearest step") {
  const std::vector<float> w = noise(70 * 64, 3);
  const double steps[] = {1.0 / 256, 0.5 / 127, 1.0 / 8, 0.5 * 2 / 15, 1.0 / 256}; // half a step, of numbers below 1
  for (const PackedFormat format : kFormats) {
    CAPTURE(packed_name(format));
    const Weights weights(format, 70, 64, w);
    for (std::int64_t r = 0; r < 70; ++r) {
      const std::vector<float> found = weights.row(r);
      for (std::int64_t c = 0; c < 64; ++c)
        CHECK(std::abs(found[c] - w[r * 64 + c]) <= 1.01 * steps[static_cast<int>(format)]);
    }
  }
}

TEST_CASE("weights that are all the same survive every format") {
  for (const PackedFormat format : kFormats)
    for (const float value : {0.0f, 0.5f, -0.5f}) {
      const Weights weights(format, 2, 32, std::vector<float>(64, value));
      for (const float one : weights.row(1)) CHECK(one == Approx(value).epsilon(kTolerance.lone_weight));
    }
}

TEST_CASE("sizes that no packed matrix has are refused") {
  CHECK_FALSE(packed_bytes(PackedFormat::int8g32, 64, 33));
  CHECK_FALSE(packed_bytes(PackedFormat::bf16, -1, 32));
  CHECK_FALSE(packed_bytes(PackedFormat::bf16, 1, -2));
  CHECK_FALSE(packed_bytes(PackedFormat::bf16, std::int64_t{1} << 62, std::int64_t{1} << 40));
  CHECK(packed_bytes(PackedFormat::int4g32m, 65, 64) == 2 * 2 * 1280);
  std::vector<float> w(64);
  std::vector<std::byte> out(packed_bytes(PackedFormat::bf16, 2, 32).value());
  CHECK_NOTHROW(pack(PackedFormat::bf16, 2, 32, w, out));
  CHECK_THROWS_AS(pack(PackedFormat::bf16, 2, 31, w, out), std::invalid_argument);
  CHECK_THROWS_AS(pack(PackedFormat::bf16, 2, 32, std::span(w).first(63), out), std::invalid_argument);
  CHECK_THROWS_AS(pack_blocks(PackedFormat::int8g32, nn::BlockType::Q6_K, 1, 256, {}, out), std::invalid_argument);
  CHECK_THROWS_AS(pack_blocks(PackedFormat::bf16, nn::BlockType::BF16, 2, 32, std::span(out).first(127), out),
                  std::invalid_argument);
  for (const PackedFormat format : kFormats) CHECK(packed_format(packed_name(format)) == format);
  CHECK_FALSE(packed_format("int3"));
}

} // namespace tenon::cpu

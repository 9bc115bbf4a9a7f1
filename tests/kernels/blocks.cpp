#include "kernels/blocks.hpp"

#include "registry/base/json.hpp"
#include "registry/base/sha256.hpp"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

// Digests of blocks: tests/goldens/blocks/make.py. Those of halves were taken from numpy 2.4 on the same bytes.
namespace tenon::nn {
namespace {

std::vector<std::byte> noise(std::size_t size, std::uint64_t seed) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    byte = std::byte(seed >> 56);
  }
  return bytes;
}

template <class Number>
std::string digest(const std::vector<Number>& numbers) {
  return sha256(std::as_bytes(std::span(numbers)));
}

// 64 random blocks whose f16 scales, at these places in a block, are finite.
std::string dequantised_digest(BlockType type, const std::vector<std::size_t>& scales) {
  std::vector<std::byte> bytes = noise(64 * block_bytes(type), 7);
  for (std::size_t block = 0; block < 64; ++block) {
    for (const std::size_t offset : scales) bytes[block * block_bytes(type) + offset + 1] &= std::byte{0xbf};
  }
  std::vector<float> numbers(64 * block_elements(type));
  dequantise(type, bytes, numbers);
  return digest(numbers);
}

std::vector<float> conversion_inputs() {
  std::vector<float> raw(4096);
  const auto bytes = noise(4 * raw.size(), 3);
  std::memcpy(raw.data(), bytes.data(), bytes.size());
  std::erase_if(raw, [](float f) { return !std::isfinite(f); });
  std::vector<float> inputs = raw;
  for (const float f : raw)
    inputs.push_back(std::bit_cast<float>((std::bit_cast<std::uint32_t>(f) & 0x807fffffu) | 0x38000000u));
  for (const float f : raw)
    inputs.push_back(std::bit_cast<float>((std::bit_cast<std::uint32_t>(f) & 0x80ffffffu) | 0x33000000u));
  const float edges[] = {65519.996f,     65520.0f,       -65536.0f,      5.9604645e-08f, 2.9802322e-08f,
                         2.9802326e-08f, 6.1035156e-05f, 6.1035152e-05f, 0.0f,           -0.0f};
  inputs.insert(inputs.end(), std::begin(edges), std::end(edges));
  return inputs;
}

} // namespace

TEST_CASE("quantised blocks have exactly the values gguf-py gives them") {
  const json::value goldens = read_json(std::filesystem::path(TENON_TEST_DATA) / "goldens/blocks/digests.json");
  std::size_t checked = 0;
  for (const auto& golden : goldens.as_object()) {
    CAPTURE(golden.key());
    const BlockType type = block_type(golden.key()).value();
    std::vector<std::size_t> scales = {0};
    if (type == BlockType::Q6_K)
      scales = {208};
    else if (type != BlockType::Q8_0 && type != BlockType::Q4_0 && type != BlockType::Q5_0)
      scales = {0, 2};
    CHECK(dequantised_digest(type, scales) == golden.value().as_string());
    ++checked;
  }
  CHECK(checked == 8);
}

TEST_CASE("every half that is a number has its exact float value") {
  std::vector<float> numbers;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const float f = f16_to_f32(static_cast<std::uint16_t>(bits));
    if (!std::isnan(f)) numbers.push_back(f);
  }
  CHECK(numbers.size() == 63490);
  CHECK(digest(numbers) == "680bbc22915f61aa1bbfc7265bc3882a6aa42d299bfd2c571807196e5544de2e");
}

TEST_CASE("every half and every bfloat16 survives float32 and back") {
  for (unsigned i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const float half = f16_to_f32(bits), brain = bf16_to_f32(bits);
    if (!std::isnan(half) && f32_to_f16(half) != bits) FAIL("half " << bits);
    if (!std::isnan(brain) && f32_to_bf16(brain) != bits) FAIL("bfloat16 " << bits);
  }
}

TEST_CASE("narrowing rounds to the nearest, ties to even, as numpy and torch do") {
  std::vector<std::uint16_t> halves, brains;
  for (const float f : conversion_inputs()) {
    halves.push_back(f32_to_f16(f));
    brains.push_back(f32_to_bf16(f));
  }
  CHECK(digest(halves) == "10b87e456cabdd15650fe5fd57c473cfafc7694ee619e647886d7d95fb39e9a2");
  CHECK(digest(brains) == "0fc9c23700a48878598428d1071a387432bff6af943d1387ea1c2e0339e0585f");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(f16_to_f32(f32_to_f16(nan))));
  CHECK(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("dequantise refuses bytes that are not those of the numbers asked for") {
  std::vector<float> numbers(64);
  CHECK_THROWS_AS(dequantise(BlockType::Q8_0, noise(67, 1), numbers), std::invalid_argument);
  CHECK_THROWS_AS(dequantise(BlockType::Q4_1, noise(40, 1), std::span(numbers).first(63)), std::invalid_argument);
  CHECK_NOTHROW(dequantise(BlockType::Q8_0, noise(68, 1), numbers));
}

TEST_CASE("rows are whole blocks, and their size cannot overflow") {
  CHECK(row_bytes(BlockType::Q4_1, 576) == 360);
  CHECK_FALSE(row_bytes(BlockType::Q4_1, 577));
  CHECK_FALSE(row_bytes(BlockType::F32, std::numeric_limits<std::size_t>::max()));
  CHECK(block_type("Q4_0") == BlockType::Q4_0);
  CHECK(row_bytes(BlockType::Q6_K, 512) == 420);
  CHECK_FALSE(row_bytes(BlockType::Q6_K, 288));
  CHECK_FALSE(block_type("Q3_K"));
}

} // namespace tenon::nn

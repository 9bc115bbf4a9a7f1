#include "kernels/blocks.hpp"

#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace tenon::nn {
namespace {

struct Format {
  BlockType type;
  const char* name;
  std::size_t elements, bytes;
};

constexpr std::array<Format, 6> formats{{
    {BlockType::F32, "F32", 1, 4},
    {BlockType::F16, "F16", 1, 2},
    {BlockType::BF16, "BF16", 1, 2},
    {BlockType::Q8_0, "Q8_0", 32, 34},
    {BlockType::Q4_0, "Q4_0", 32, 18},
    {BlockType::Q4_1, "Q4_1", 32, 20},
}};

const Format& format(BlockType type) { return formats[static_cast<std::size_t>(type)]; }

std::uint16_t half_at(const std::byte* bytes) {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(bytes[0]) | std::to_integer<unsigned>(bytes[1]) << 8);
}

void dequantise_q8_0(const std::byte* in, float* out) {
  const float d = f16_to_f32(half_at(in));
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<std::int8_t>(in[2 + j])) * d;
}

void dequantise_q4_0(const std::byte* in, float* out) {
  const float d = f16_to_f32(half_at(in));
  for (int j = 0; j < 16; ++j) {
    const int pair = std::to_integer<int>(in[2 + j]);
    out[j] = static_cast<float>((pair & 15) - 8) * d;
    out[j + 16] = static_cast<float>((pair >> 4) - 8) * d;
  }
}

void dequantise_q4_1(const std::byte* in, float* out) {
  const float d = f16_to_f32(half_at(in)), m = f16_to_f32(half_at(in + 2));
  for (int j = 0; j < 16; ++j) {
    const int pair = std::to_integer<int>(in[4 + j]);
    out[j] = static_cast<float>(pair & 15) * d + m;
    out[j + 16] = static_cast<float>(pair >> 4) * d + m;
  }
}

} // namespace

const char* block_name(BlockType type) { return format(type).name; }
std::size_t block_elements(BlockType type) { return format(type).elements; }
std::size_t block_bytes(BlockType type) { return format(type).bytes; }

std::optional<BlockType> block_type(std::string_view name) {
  for (const Format& f : formats) {
    if (name == f.name) return f.type;
  }
  return std::nullopt;
}

std::optional<std::size_t> row_bytes(BlockType type, std::size_t columns) {
  if (columns % block_elements(type) != 0) return std::nullopt;
  const std::size_t blocks = columns / block_elements(type);
  if (blocks > std::numeric_limits<std::size_t>::max() / block_bytes(type)) return std::nullopt;
  return blocks * block_bytes(type);
}

void dequantise(BlockType type, std::span<const std::byte> in, std::span<float> out) {
  if (row_bytes(type, out.size()) != in.size()) {
    throw std::invalid_argument("dequantise: the bytes given are not those of the numbers asked for");
  }
  if (out.empty()) return;
  if (type == BlockType::F32) {
    std::memcpy(out.data(), in.data(), in.size());
    return;
  }
  const std::size_t blocks = out.size() / block_elements(type);
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::byte* source = in.data() + b * block_bytes(type);
    float* target = out.data() + b * block_elements(type);
    switch (type) {
      case BlockType::F32: break;
      case BlockType::F16: *target = f16_to_f32(half_at(source)); break;
      case BlockType::BF16: *target = bf16_to_f32(half_at(source)); break;
      case BlockType::Q8_0: dequantise_q8_0(source, target); break;
      case BlockType::Q4_0: dequantise_q4_0(source, target); break;
      case BlockType::Q4_1: dequantise_q4_1(source, target); break;
    }
  }
}

float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  const std::uint32_t exponent = (bits >> 10) & 31, fraction = bits & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f; // a denormal half is exact in float32
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

float bf16_to_f32(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

std::uint16_t f32_to_f16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00;              // NaN
  if (magnitude >= 0x477ff000u) return sign | 0x7c00;             // 65520 and above round to infinity
  if (magnitude < 0x38800000u) {                                  // below 2^-14: a denormal half counts units of 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f; // one unit of 0.5f is 2^-24: the sum rounds to even
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
  }
  const std::uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

std::uint16_t f32_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

} // namespace tenon::nn

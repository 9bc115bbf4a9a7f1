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

constexpr std::array<Format, 11> formats{{
    {BlockType::F32, "F32", 1, 4},
    {BlockType::F16, "F16", 1, 2},
    {BlockType::BF16, "BF16", 1, 2},
    {BlockType::Q8_0, "Q8_0", 32, 34},
    {BlockType::Q4_0, "Q4_0", 32, 18},
    {BlockType::Q4_1, "Q4_1", 32, 20},
    {BlockType::Q5_0, "Q5_0", 32, 22},
    {BlockType::Q5_1, "Q5_1", 32, 24},
    {BlockType::Q4_K, "Q4_K", 256, 144},
    {BlockType::Q5_K, "Q5_K", 256, 176},
    {BlockType::Q6_K, "Q6_K", 256, 210},
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

// The fifth bits of 32 numbers, one a bit.
std::uint32_t fifth_bits(const std::byte* in) {
  return half_at(in) | static_cast<std::uint32_t>(half_at(in + 2)) << 16;
}

void dequantise_q5_0(const std::byte* in, float* out) {
  const float d = f16_to_f32(half_at(in));
  const std::uint32_t high = fifth_bits(in + 2);
  for (int j = 0; j < 16; ++j) {
    const int pair = std::to_integer<int>(in[6 + j]);
    out[j] = static_cast<float>(((pair & 15) | static_cast<int>(high >> j & 1) << 4) - 16) * d;
    out[j + 16] = static_cast<float>((pair >> 4 | static_cast<int>(high >> (j + 16) & 1) << 4) - 16) * d;
  }
}

void dequantise_q5_1(const std::byte* in, float* out) {
  const float d = f16_to_f32(half_at(in)), m = f16_to_f32(half_at(in + 2));
  const std::uint32_t high = fifth_bits(in + 4);
  for (int j = 0; j < 16; ++j) {
    const int pair = std::to_integer<int>(in[8 + j]);
    out[j] = static_cast<float>((pair & 15) | static_cast<int>(high >> j & 1) << 4) * d + m;
    out[j + 16] = static_cast<float>(pair >> 4 | static_cast<int>(high >> (j + 16) & 1) << 4) * d + m;
  }
}

struct GroupScale {
  int scale, minimum;
};

// Group g's 6-bit scale and minimum: the first four lie in the low six bits of bytes 0-3 and 4-7; of the last four the
// low halves lie in bytes 8-11 and the upper two bits above the first four's.
GroupScale group_scale(const std::byte* packed, int g) {
  const auto byte = [&](int i) { return std::to_integer<int>(packed[i]); };
  if (g < 4) return {byte(g) & 63, byte(g + 4) & 63};
  return {(byte(g + 4) & 15) | (byte(g - 4) >> 6) << 4, byte(g + 4) >> 4 | (byte(g) >> 6) << 4};
}

// Q4_K and Q5_K: eight groups of 32; two groups share 32 bytes, the first in the low halves. high: null, or 32 bytes of
// fifth bits, bit g for group g.
void dequantise_groups(const std::byte* in, const std::byte* high, const std::byte* low, float* out) {
  const float d = f16_to_f32(half_at(in)), e = f16_to_f32(half_at(in + 2));
  for (int g = 0; g < 8; ++g) {
    const GroupScale group = group_scale(in + 4, g);
    const float scale = d * static_cast<float>(group.scale), minimum = e * static_cast<float>(group.minimum);
    for (int j = 0; j < 32; ++j) {
      int q = std::to_integer<int>(low[g / 2 * 32 + j]) >> (g % 2 * 4) & 15;
      if (high) q |= (std::to_integer<int>(high[j]) >> g & 1) << 4;
      out[g * 32 + j] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void dequantise_q4_k(const std::byte* in, float* out) { dequantise_groups(in, nullptr, in + 16, out); }
void dequantise_q5_k(const std::byte* in, float* out) { dequantise_groups(in, in + 16, in + 48, out); }

// Two halves of 128 numbers, each with 64 bytes of low halves, 32 bytes of upper pairs of bits and eight scales; in a
// half, 32 numbers stand in the low halves of the first 32 bytes, 32 in those of the next, then the high halves.
void dequantise_q6_k(const std::byte* in, float* out) {
  const float d = f16_to_f32(half_at(in + 208));
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = i % 128 / 32, j = i % 32;
    const int low = std::to_integer<int>(in[half * 64 + quarter % 2 * 32 + j]) >> (quarter / 2 * 4) & 15;
    const int high = std::to_integer<int>(in[128 + half * 32 + j]) >> (2 * quarter) & 3;
    const float scale = d * static_cast<float>(static_cast<std::int8_t>(in[192 + i / 16]));
    out[i] = scale * static_cast<float>((low | high << 4) - 32);
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

const std::string& block_type_list() {
  static const std::string list = [] {
    std::string text;
    for (const Format& f : formats)
      text += (text.empty() ? "" : f.type == formats.back().type ? " or " : ", ") + std::string(f.name);
    return text;
  }();
  return list;
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
      case BlockType::Q5_0: dequantise_q5_0(source, target); break;
      case BlockType::Q5_1: dequantise_q5_1(source, target); break;
      case BlockType::Q4_K: dequantise_q4_k(source, target); break;
      case BlockType::Q5_K: dequantise_q5_k(source, target); break;
      case BlockType::Q6_K: dequantise_q6_k(source, target); break;
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

// Weights of a product in the form in which kernels read them, the same for every tier.
//
// A matrix W (F outputs, C inputs) is cut into panels of 64 outputs. A panel is one stream of bytes in the order in
// which kernels walk C; its 64 outputs stand side by side, in the lanes. Outputs beyond F are zeros.
//
//   bf16      per 2 inputs:  64 x {w[c], w[c+1]} bfloat16; an odd last input is paired with zero      256 bytes
//   bf16e4    per 2 inputs:  the same in 12 bits a number (short_exponents.hpp)                        192 bytes
//   int8g32   per 32 inputs: 64 f16 scales d; 8 x 64 x 4 bytes q + 128;             w = q d           2176 bytes
//   int4g32   per 32 inputs: 64 f16 scales d; 4 x 64 x 4 bytes of two quarters q;   w = (q - 8) d     1152 bytes
//   int4g32m  the same with 64 f16 minima m after the scales;                       w = q d + m       1280 bytes
//
// In int4 the low half of byte i of quad j is input 4j + i of the group, the high half input 16 + 4j + i. Scales and
// minima are ggml's f16, verbatim: Q8_0, Q4_0 and Q4_1 are packed without loss. Sizes are multiples of 64 bytes.
// Thread: values; any.
#pragma once

#include "kernels/blocks.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace tenon::cpu {

constexpr std::int64_t kPanel = 64; // outputs side by side
constexpr std::int64_t kGroup = 32; // inputs that share a scale

enum class PackedFormat { bf16, int8g32, int4g32, int4g32m, bf16e4 };
constexpr std::size_t kPackedFormats = 5;
// Whether its products read rows in bfloat16; else in int8.
constexpr bool reads_bf16(PackedFormat format) {
  return format == PackedFormat::bf16 || format == PackedFormat::bf16e4;
}
const char* packed_name(PackedFormat format);
std::optional<PackedFormat> packed_format(std::string_view name);

// Of 32 inputs of a panel in one of the formats of integers.
template <PackedFormat F>
struct IntegerUnit {
  static constexpr bool minimum = F == PackedFormat::int4g32m, wide = F == PackedFormat::int8g32;
  static constexpr std::int64_t head = minimum ? 256 : 128, // bytes ahead of the integers
      bytes = head + (wide ? 2048 : 1024);
  static constexpr int offset = wide ? 128 : minimum ? 0 : 8; // of the integers as they are packed
};

// A packed matrix, wherever its bytes lie. Requires: bytes are those of packed_bytes, aligned to 64.
struct PackedMatrix {
  PackedFormat format = PackedFormat::bf16;
  std::int64_t outputs = 0, inputs = 0;
  const std::byte* bytes = nullptr;

  std::int64_t panels() const { return (outputs + kPanel - 1) / kPanel; }
  const std::byte* panel(std::int64_t index) const;
};

// Bytes of one panel, and of a matrix; nullopt where a group format meets inputs that are no multiple of 32, a size is
// negative, or the result overflows.
std::optional<std::size_t> panel_bytes(PackedFormat format, std::int64_t inputs);
std::optional<std::size_t> packed_bytes(PackedFormat format, std::int64_t outputs, std::int64_t inputs);

// The format that holds these blocks without loss, whatever they are: of BF16, Q8_0, Q4_0, Q4_1; nullopt for others.
std::optional<PackedFormat> lossless_format(nn::BlockType type);
// Whether a format holds blocks of this type without loss: bf16e4 those of BF16, wherever it can hold them.
bool is_lossless(PackedFormat format, nn::BlockType type);
// bf16e4 where it holds these weights, rounded to bfloat16, or these blocks of BF16; else bf16.
PackedFormat shortest_bf16(std::int64_t outputs, std::int64_t inputs, std::span<const float> weights);
PackedFormat shortest_bf16(std::int64_t outputs, std::int64_t inputs, std::span<const std::byte> blocks);

// From float32 (F,C), row-major: rounded to the nearest; for int8g32 d = max|w| / 127, for int4g32 d = -extreme / 8,
// for int4g32m d = (max - min) / 15, all as f16. Requires: finite, below f16's largest times the number of steps.
// Throws std::invalid_argument unless the sizes agree, and where bf16e4 does not hold the weights.
void pack(PackedFormat format, std::int64_t outputs, std::int64_t inputs, std::span<const float> weights,
          std::span<std::byte> out);
// From stored blocks. Requires: is_lossless(format, type). Throws as pack.
void pack_blocks(PackedFormat format, nn::BlockType type, std::int64_t outputs, std::int64_t inputs,
                 std::span<const std::byte> blocks, std::span<std::byte> out);
// Back to float32: output `row`'s inputs, exactly the values kernels compute with. row < outputs.
void unpack_row(const PackedMatrix& matrix, std::int64_t row, std::span<float> out);

} // namespace tenon::cpu

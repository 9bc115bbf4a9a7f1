// Number formats of stored weights, and their exact value in float32: F32, F16, BF16 and ggml's Q8_0, Q4_0, Q4_1.
//
// A block format groups `block_elements` numbers of one row; rows are whole blocks. Every dequantised value equals
// ggml's bit for bit: d times q is exact in float32 (11 bits by at most 8), so only Q4_1's sum rounds, and only once.
// Bytes are little-endian and need no alignment. Thread: any; nothing is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace tenon::nn {

enum class BlockType {
  F32,
  F16,
  BF16,
  Q8_0, // 32 weights: f16 d, 32 x int8 q;                 x = q d
  Q4_0, // 32 weights: f16 d, 16 bytes;                    x = (q - 8) d
  Q4_1, // 32 weights: f16 d, f16 m, 16 bytes;             x = q d + m
};      // of the 16 bytes, byte j holds element j in its low half and element j+16 in its high half

const char* block_name(BlockType type);                     // "Q4_1"
std::optional<BlockType> block_type(std::string_view name); // nullopt for a name not listed above
std::size_t block_elements(BlockType type);                 // 1 or 32
std::size_t block_bytes(BlockType type);                    // 4, 2, 2, 34, 18, 20
inline bool is_quantised(BlockType type) { return block_elements(type) > 1; }

// Bytes of a row of `columns` numbers; nullopt when they are no whole number of blocks, or the size overflows.
std::optional<std::size_t> row_bytes(BlockType type, std::size_t columns);

// Writes the float32 values of whole blocks. out may not overlap in.
// Throws std::invalid_argument unless in is exactly the bytes of out.size() numbers.
void dequantise(BlockType type, std::span<const std::byte> in, std::span<float> out);

float f16_to_f32(std::uint16_t bits);   // exact, denormals, infinities and NaN included
float bf16_to_f32(std::uint16_t bits);  // exact
std::uint16_t f32_to_f16(float value);  // nearest, ties to even; overflow gives infinity
std::uint16_t f32_to_bf16(float value); // nearest, ties to even; NaN stays NaN

} // namespace tenon::nn

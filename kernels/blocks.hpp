// Number formats of stored weights, and their exact value in float32: F32, F16, BF16, and ggml's block formats below.
//
// A block format groups `block_elements` numbers of one row; rows are whole blocks. Every dequantised value equals
// ggml's bit for bit: every product of scales and a number is exact in float32 (at most 24 bits), so only where a
// minimum is added or subtracted the sum rounds, and only once.
// Bytes are little-endian and need no alignment. Thread: any; nothing is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tenon::nn {

enum class BlockType {
  F32,
  F16,
  BF16,
  // 32 weights. Of 16 bytes of quarters q, byte j holds element j in its low half and element j+16 in its high half.
  Q8_0, // f16 d, 32 x int8 q;                        x = q d
  Q4_0, // f16 d, 16 bytes;                           x = (q - 8) d
  Q4_1, // f16 d, f16 m, 16 bytes;                    x = q d + m
  Q5_0, // f16 d, 32 fifth bits, 16 bytes;            x = (q - 16) d
  Q5_1, // f16 d, f16 m, 32 fifth bits, 16 bytes;     x = q d + m
  // 256 weights, in groups with scales s (and minima m) of their own, themselves in units of the block's d (and e).
  Q4_K, // f16 d, f16 e, 8 x 6 bits s and m in 12 bytes, 128 bytes;                  x = q s d - m e
  Q5_K, // f16 d, f16 e, 8 x 6 bits s and m in 12 bytes, 32 bytes high, 128 bytes;   x = q s d - m e
  Q6_K, // 128 bytes low, 64 bytes high, 16 x int8 s, f16 d;                         x = (q - 32) s d
};

const char* block_name(BlockType type);                     // "Q4_1"
std::optional<BlockType> block_type(std::string_view name); // nullopt for a name not listed above
const std::string& block_type_list();                       // "F32, F16, ... or Q6_K", for messages
std::size_t block_elements(BlockType type);                 // 1, 32 or 256
std::size_t block_bytes(BlockType type);
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

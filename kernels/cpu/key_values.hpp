// Keys and values of a sequence in the form in which attention reads them, in chunks of kChunk positions.
//
//   float32  a row (G,D) a position
//   bf16     panels as of a packed matrix in bf16 (packed_matrix.hpp), so that attention is two of its products: for
//   every
//            group four panels whose outputs are keys and whose inputs are D; for the values of all groups together
//            panels whose outputs are values and whose inputs are positions
//
// What is put is all that is ever read of a chunk. Whoever copies a chunk copies it whole: a position of bf16 lies all
// over it. Shapes: G groups; D head width. Thread: any; one at a time for a chunk.
#pragma once

#include "kernels/cpu/kernels.hpp"

namespace tenon::cpu {

struct HeadShape {
  std::int64_t heads = 0, kv_heads = 0, depth = 0;
  std::int64_t q_width() const { return heads * depth; }
  std::int64_t kv_width() const { return kv_heads * depth; }
};

enum class KeyFormat { float32, bf16 };

// How many float32 numbers' memory a position takes of a chunk: kChunk times this is a chunk.
std::int64_t key_width(KeyFormat format, const HeadShape& shape);
std::int64_t value_width(KeyFormat format, const HeadShape& shape);

// Rows (G,D) of positions [first, first + count). chunks: one pointer per chunk, aligned to 64.
void put_keys(const Kernels& kernels, KeyFormat format, const HeadShape& shape, const float* rows, std::int64_t first,
              std::int64_t count, float* const* chunks);
void put_values(const Kernels& kernels, KeyFormat format, const HeadShape& shape, const float* rows, std::int64_t first,
                std::int64_t count, float* const* chunks);

// Of a chunk in bf16: the first of a group's panels; the panel of values [64 index, 64 index + 64) of all groups.
const std::byte* key_panels(const float* chunk, const HeadShape& shape, std::int64_t group);
const std::byte* value_panel(const float* chunk, std::int64_t index);

} // namespace tenon::cpu

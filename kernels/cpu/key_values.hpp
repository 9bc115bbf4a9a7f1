// Keys and values of a sequence in the form in which attention reads them, in chunks of kChunk positions.
//
//   float32  a row (G,D) a position
//   bf16     panels as of a packed matrix (packed_matrix.hpp), so that attention is two of its products: for every
//   group
//            four panels whose outputs are keys and whose inputs are D; for the values of all groups together panels
//            whose outputs are values and whose inputs are positions
//   int8     the same in int8g32; D is a multiple of 32. Keys have a scale per 32 inputs. Values have one step for each
//            position and group, of bfloat16's digits, kept behind the panels and multiplied into attention's weights;
//            the panels' own are 1
//
// What is put is all that is ever read of a chunk. Whoever copies a chunk copies it whole: a position of panels lies
// all over it. Shapes: G groups; D head width. Thread: any; one at a time for a chunk.
#pragma once

#include "kernels/cpu/kernels.hpp"

#include <optional>
#include <string_view>

namespace tenon::cpu {

struct HeadShape {
  std::int64_t heads = 0, kv_heads = 0, depth = 0;
  std::int64_t q_width() const { return heads * depth; }
  std::int64_t kv_width() const { return kv_heads * depth; }
};

enum class KeyFormat { float32, bf16, int8 };
const char* key_format_name(KeyFormat format);
std::optional<KeyFormat> key_format(std::string_view name);
bool holds(KeyFormat format, const HeadShape& shape);
// The one that TENON_KEYS names; bf16 unless said. For heads of a shape: only if it holds them. Throw
// std::runtime_error, saying what was found, what is needed and the remedy.
KeyFormat chosen_key_format();
KeyFormat chosen_key_format(const HeadShape& shape);

// How many float32 numbers' memory a position takes of a chunk: kChunk times this is a chunk.
// Requires (here and below): the format holds this shape.
std::int64_t key_width(KeyFormat format, const HeadShape& shape);
std::int64_t value_width(KeyFormat format, const HeadShape& shape);

// Rows (G,D) of positions [first, first + count). chunks: one pointer per chunk, aligned to 64.
void put_keys(const Kernels& kernels, KeyFormat format, const HeadShape& shape, const float* rows, std::int64_t first,
              std::int64_t count, float* const* chunks);
void put_values(const Kernels& kernels, KeyFormat format, const HeadShape& shape, const float* rows, std::int64_t first,
                std::int64_t count, float* const* chunks);

// Back to rows: what attention computes with. Rows that came from a form are kept in it unchanged.
void get_keys(KeyFormat format, const HeadShape& shape, const float* const* chunks, std::int64_t first,
              std::int64_t count, float* rows);
void get_values(KeyFormat format, const HeadShape& shape, const float* const* chunks, std::int64_t first,
                std::int64_t count, float* rows);

// Where things stand in a chunk of panels.
class ChunkOfPanels {
 public:
  ChunkOfPanels(KeyFormat format, const HeadShape& shape, const float* k, const float* v)
      : format_(format), shape_(shape), k_(k), v_(v) {}
  const std::byte* keys(std::int64_t group) const; // the first of four panels
  const std::byte* values() const { return reinterpret_cast<const std::byte*>(v_); }
  const float* steps(std::int64_t group) const; // (kChunk), in int8

 private:
  KeyFormat format_;
  const HeadShape& shape_;
  const float *k_, *v_;
};

} // namespace tenon::cpu

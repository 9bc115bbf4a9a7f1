#include "kernels/cpu/key_values.hpp"

#include <algorithm>
#include <cstring>

namespace tenon::cpu {
namespace {

constexpr std::int64_t kPairBytes = 4 * kPanel;                    // two inputs of a panel
constexpr std::int64_t kValuePanelBytes = kChunk / 2 * kPairBytes; // a chunk's positions

std::int64_t pairs(std::int64_t depth) { return (depth + 1) / 2; }

// Up to 64 numbers as bfloat16; an odd one is paired with zero.
struct Rounded {
  std::int64_t count;
  std::uint16_t bits[kPanel];
  Rounded(const Kernels& kernels, const float* from, std::int64_t left) : count(std::min(kPanel, left)) {
    kernels.round(from, count, bits);
    if (count % 2) bits[count] = 0;
  }
};

void put_key(const Kernels& kernels, const HeadShape& shape, const float* row, std::int64_t place, std::byte* chunk) {
  for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
    std::byte* at = chunk + (g * (kChunk / kPanel) + place / kPanel) * pairs(shape.depth) * kPairBytes;
    at += place % kPanel * 4;
    for (std::int64_t d = 0; d < shape.depth; d += kPanel) {
      const Rounded key(kernels, row + g * shape.depth + d, shape.depth - d);
      for (std::int64_t i = 0; i < key.count; i += 2, at += kPairBytes) std::memcpy(at, key.bits + i, 4);
    }
  }
}

// The first of a pair clears the second's place: what stood there may be no number at all, and would be multiplied by
// the zero weight of a position that nobody sees.
void put_value(const Kernels& kernels, const HeadShape& shape, const float* row, std::int64_t place, std::byte* chunk) {
  for (std::int64_t d = 0; d < shape.kv_width(); d += kPanel) {
    std::byte* at = chunk + d / kPanel * kValuePanelBytes + place / 2 * kPairBytes;
    const Rounded value(kernels, row + d, shape.kv_width() - d);
    for (std::int64_t lane = 0; lane < value.count; ++lane) {
      if (place % 2 == 0) {
        const std::uint16_t pair[2] = {value.bits[lane], 0};
        std::memcpy(at + 4 * lane, pair, 4);
      } else {
        std::memcpy(at + 4 * lane + 2, value.bits + lane, 2);
      }
    }
  }
}

// put(row, place in its chunk, chunk) for every position.
template <class Put>
void for_positions(const float* rows, std::int64_t width, std::int64_t first, std::int64_t count, float* const* chunks,
                   const Put& put) {
  for (std::int64_t i = 0; i < count; ++i) put(rows + i * width, (first + i) % kChunk, chunks[(first + i) / kChunk]);
}

void put_rows(const HeadShape& shape, const float* rows, std::int64_t first, std::int64_t count, float* const* chunks) {
  const std::int64_t width = shape.kv_width();
  for_positions(rows, width, first, count, chunks, [&](const float* row, std::int64_t place, float* chunk) {
    std::memcpy(chunk + place * width, row, static_cast<std::size_t>(width) * sizeof(float));
  });
}

} // namespace

std::int64_t key_width(KeyFormat format, const HeadShape& shape) {
  return format == KeyFormat::float32 ? shape.kv_width() : shape.kv_heads * pairs(shape.depth);
}

std::int64_t value_width(KeyFormat format, const HeadShape& shape) {
  return format == KeyFormat::float32 ? shape.kv_width() : (shape.kv_width() + kPanel - 1) / kPanel * (kPanel / 2);
}

void put_keys(const Kernels& kernels, KeyFormat format, const HeadShape& shape, const float* rows, std::int64_t first,
              std::int64_t count, float* const* chunks) {
  if (format == KeyFormat::float32) return put_rows(shape, rows, first, count, chunks);
  for_positions(rows, shape.kv_width(), first, count, chunks, [&](const float* row, std::int64_t place, float* chunk) {
    put_key(kernels, shape, row, place, reinterpret_cast<std::byte*>(chunk));
  });
}

void put_values(const Kernels& kernels, KeyFormat format, const HeadShape& shape, const float* rows, std::int64_t first,
                std::int64_t count, float* const* chunks) {
  if (format == KeyFormat::float32) return put_rows(shape, rows, first, count, chunks);
  for_positions(rows, shape.kv_width(), first, count, chunks, [&](const float* row, std::int64_t place, float* chunk) {
    put_value(kernels, shape, row, place, reinterpret_cast<std::byte*>(chunk));
  });
}

const std::byte* key_panels(const float* chunk, const HeadShape& shape, std::int64_t group) {
  return reinterpret_cast<const std::byte*>(chunk) + group * (kChunk / kPanel) * pairs(shape.depth) * kPairBytes;
}

const std::byte* value_panel(const float* chunk, std::int64_t index) {
  return reinterpret_cast<const std::byte*>(chunk) + index * kValuePanelBytes;
}

} // namespace tenon::cpu

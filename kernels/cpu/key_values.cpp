#include "kernels/cpu/key_values.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace tenon::cpu {
namespace {

constexpr std::array kFormats = {KeyFormat::float32, KeyFormat::bf16, KeyFormat::int8};
constexpr std::int64_t kQuadBytes = 4 * kPanel; // of a panel: two inputs in bf16, four in int8

std::int64_t panels(std::int64_t outputs) { return (outputs + kPanel - 1) / kPanel; }

PackedFormat packed(KeyFormat format) { return format == KeyFormat::bf16 ? PackedFormat::bf16 : PackedFormat::int8g32; }

constexpr std::int64_t kHeadBytes = 2 * kPanel;                           // of a group in int8: its scales
constexpr std::int64_t kUnitBytes = kHeadBytes + kGroup / 4 * kQuadBytes; // of a group in int8

// Bytes of a panel over so many inputs: what panel_bytes says, for what has been checked.
std::int64_t bytes_over(KeyFormat format, std::int64_t inputs) {
  return format == KeyFormat::bf16 ? (inputs + 1) / 2 * kQuadBytes : inputs / kGroup * kUnitBytes;
}

std::int64_t key_bytes(KeyFormat format, const HeadShape& shape) { // of a chunk, one group
  return kChunk / kPanel * bytes_over(format, shape.depth);
}
std::int64_t value_bytes(KeyFormat format, const HeadShape& shape) { // of a chunk, all groups, without steps
  return panels(shape.kv_width()) * bytes_over(format, kChunk);
}

std::int64_t numbers(std::int64_t chunk_bytes) {
  constexpr std::int64_t unit = kChunk * static_cast<std::int64_t>(sizeof(float));
  return (chunk_bytes + unit - 1) / unit;
}

// Where in a panel of values in int8 a position's bytes begin.
std::int64_t value_place(std::int64_t place) {
  return place / kGroup * kUnitBytes + kHeadBytes + place % kGroup / 4 * kQuadBytes + place % 4;
}

// Up to 64 numbers as bfloat16; an odd one is paired with zero.
struct Rounded {
  std::int64_t count;
  std::uint16_t bits[kPanel];
  Rounded(const Kernels& kernels, const float* from, std::int64_t left) : count(std::min(kPanel, left)) {
    kernels.round(from, count, bits);
    if (count % 2) bits[count] = 0;
  }
};

// A key of one group into its lane of a panel.
void put_key_bf16(const Kernels& kernels, const float* key, std::int64_t depth, std::byte* lane) {
  for (std::int64_t d = 0; d < depth; d += kPanel) {
    const Rounded part(kernels, key + d, depth - d);
    for (std::int64_t i = 0; i < part.count; i += 2, lane += kQuadBytes) std::memcpy(lane, part.bits + i, 4);
  }
}

void put_key_int8(const Kernels& kernels, const float* key, std::int64_t depth, std::byte* panel, std::int64_t lane) {
  for (std::int64_t d = 0; d < depth; d += kGroup, panel += kUnitBytes) {
    std::int8_t q[kGroup];
    float scale = 0;
    std::int32_t sum = 0;
    kernels.quantise(key + d, kGroup, q, &scale, &sum);
    const std::uint16_t half = nn::f32_to_f16(scale);
    std::memcpy(panel + 2 * lane, &half, 2);
    for (std::int8_t& one : q) one = static_cast<std::int8_t>(one ^ -128); // q + 128, as packed
    for (std::int64_t i = 0; i < kGroup; i += 4)
      std::memcpy(panel + kHeadBytes + i / 4 * kQuadBytes + 4 * lane, q + i, 4);
  }
}

void put_key(const Kernels& kernels, KeyFormat format, const HeadShape& shape, const float* row, std::int64_t place,
             std::byte* chunk) {
  for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
    std::byte* panel = chunk + g * key_bytes(format, shape) + place / kPanel * bytes_over(format, shape.depth);
    const float* key = row + g * shape.depth;
    if (format == KeyFormat::bf16)
      put_key_bf16(kernels, key, shape.depth, panel + place % kPanel * 4);
    else
      put_key_int8(kernels, key, shape.depth, panel, place % kPanel);
  }
}

// The first of a pair clears the second's place: what stood there may be no number at all, and would be multiplied by
// the zero weight of a position that nobody sees.
void put_value_bf16(const Kernels& kernels, const HeadShape& shape, const float* row, std::int64_t place,
                    std::byte* chunk) {
  for (std::int64_t d = 0; d < shape.kv_width(); d += kPanel) {
    std::byte* at = chunk + d / kPanel * bytes_over(KeyFormat::bf16, kChunk) + place / 2 * kQuadBytes;
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

// The step with which 127 is the largest of these; NaN where one is not finite. With few digits 127 steps are exact,
// and numbers that were whole steps once are so again.
float step_of(const float* x, std::int64_t count) {
  float largest = 0, finite = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(x[i])), finite += x[i] * 0.0f;
  return nn::bf16_to_f32(nn::f32_to_bf16(largest / 127.0f + finite));
}

// The nearest whole number of those that a byte holds, as packed: + 128. Ties go to the even one.
std::uint8_t whole(float x) {
  constexpr float magic = 12582912.0f; // 1.5 * 2^23: the last bit of x + magic is worth 1
  return static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(x + magic) + 128);
}

// A group's first position writes the panels' scales. What stands at positions that nobody sees is some byte, times
// zero.
void put_value_int8(const HeadShape& shape, const float* row, std::int64_t place, std::byte* chunk) {
  auto* steps = reinterpret_cast<float*>(chunk + value_bytes(KeyFormat::int8, shape));
  for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
    const float *value = row + g * shape.depth, step = step_of(value, shape.depth);
    const float inverse = step > kSmallest ? 1.0f / step : 0.0f;
    steps[g * kChunk + place] = step;
    for (std::int64_t d = 0; d < shape.depth; ++d) {
      const std::int64_t output = g * shape.depth + d, lane = output % kPanel;
      std::byte* panel = chunk + output / kPanel * bytes_over(KeyFormat::int8, kChunk);
      if (place % kGroup == 0) {
        constexpr std::uint16_t one = 0x3c00;
        std::memcpy(panel + place / kGroup * kUnitBytes + 2 * lane, &one, 2);
      }
      panel[value_place(place) + 4 * lane] = std::byte(whole(value[d] * inverse));
    }
  }
}

// put(row, place in its chunk, chunk) for every position.
template <class Put>
void for_positions(const float* rows, std::int64_t width, std::int64_t first, std::int64_t count, float* const* chunks,
                   const Put& put) {
  for (std::int64_t i = 0; i < count; ++i)
    put(rows + i * width, (first + i) % kChunk, reinterpret_cast<std::byte*>(chunks[(first + i) / kChunk]));
}

void put_row(const HeadShape& shape, const float* row, std::int64_t place, std::byte* chunk) {
  const auto bytes = static_cast<std::size_t>(shape.kv_width()) * sizeof(float);
  std::memcpy(chunk + static_cast<std::size_t>(place) * bytes, row, bytes);
}

} // namespace

const char* key_format_name(KeyFormat format) {
  switch (format) {
    case KeyFormat::float32: return "float32";
    case KeyFormat::bf16: return "bf16";
    case KeyFormat::int8: return "int8";
  }
  return "?";
}

std::optional<KeyFormat> key_format(std::string_view name) {
  for (const KeyFormat format : kFormats)
    if (name == key_format_name(format)) return format;
  return std::nullopt;
}

bool holds(KeyFormat format, const HeadShape& shape) { return format != KeyFormat::int8 || shape.depth % kGroup == 0; }

KeyFormat chosen_key_format() {
  const char* asked = std::getenv("TENON_KEYS");
  if (!asked || !*asked) return KeyFormat::bf16;
  if (const auto format = key_format(asked)) return *format;
  throw std::runtime_error("TENON_KEYS: found \"" + std::string(asked) + "\", need float32, bf16 or int8");
}

KeyFormat chosen_key_format(const HeadShape& shape) {
  const KeyFormat format = chosen_key_format();
  if (holds(format, shape)) return format;
  throw std::runtime_error("TENON_KEYS: found " + std::string(key_format_name(format)) +
                           ", which needs heads of a multiple of " + std::to_string(kGroup) + ", these are " +
                           std::to_string(shape.depth) + " wide; choose bf16 or float32");
}

std::int64_t key_width(KeyFormat format, const HeadShape& shape) {
  return format == KeyFormat::float32 ? shape.kv_width() : numbers(shape.kv_heads * key_bytes(format, shape));
}

std::int64_t value_width(KeyFormat format, const HeadShape& shape) {
  if (format == KeyFormat::float32) return shape.kv_width();
  return numbers(value_bytes(format, shape)) + (format == KeyFormat::int8 ? shape.kv_heads : 0);
}

void put_keys(const Kernels& kernels, KeyFormat format, const HeadShape& shape, const float* rows, std::int64_t first,
              std::int64_t count, float* const* chunks) {
  for_positions(rows, shape.kv_width(), first, count, chunks,
                [&](const float* row, std::int64_t place, std::byte* chunk) {
                  if (format == KeyFormat::float32) return put_row(shape, row, place, chunk);
                  put_key(kernels, format, shape, row, place, chunk);
                });
}

void put_values(const Kernels& kernels, KeyFormat format, const HeadShape& shape, const float* rows, std::int64_t first,
                std::int64_t count, float* const* chunks) {
  for_positions(rows, shape.kv_width(), first, count, chunks,
                [&](const float* row, std::int64_t place, std::byte* chunk) {
                  switch (format) {
                    case KeyFormat::float32: return put_row(shape, row, place, chunk);
                    case KeyFormat::bf16: return put_value_bf16(kernels, shape, row, place, chunk);
                    case KeyFormat::int8: return put_value_int8(shape, row, place, chunk);
                  }
                });
}

void get_keys(KeyFormat format, const HeadShape& shape, const float* const* chunks, std::int64_t first,
              std::int64_t count, float* rows) {
  for (std::int64_t i = 0; i < count; ++i, rows += shape.kv_width()) {
    const float* chunk = chunks[(first + i) / kChunk];
    const std::int64_t place = (first + i) % kChunk;
    if (format == KeyFormat::float32) {
      std::copy_n(chunk + place * shape.kv_width(), shape.kv_width(), rows);
      continue;
    }
    for (std::int64_t g = 0; g < shape.kv_heads; ++g) {
      const std::byte* panels = ChunkOfPanels(format, shape, chunk, nullptr).keys(g);
      unpack_row({packed(format), kChunk, shape.depth, panels}, place,
                 {rows + g * shape.depth, static_cast<std::size_t>(shape.depth)});
    }
  }
}

void get_values(KeyFormat format, const HeadShape& shape, const float* const* chunks, std::int64_t first,
                std::int64_t count, float* rows) {
  for (std::int64_t i = 0; i < count; ++i, rows += shape.kv_width()) {
    const float* chunk = chunks[(first + i) / kChunk];
    const std::int64_t place = (first + i) % kChunk;
    const ChunkOfPanels panels(format, shape, nullptr, chunk);
    for (std::int64_t o = 0; o < shape.kv_width(); ++o) {
      const std::byte* panel = panels.values() + o / kPanel * bytes_over(format, kChunk);
      const std::int64_t lane = o % kPanel;
      if (format == KeyFormat::float32) {
        rows[o] = chunk[place * shape.kv_width() + o];
      } else if (format == KeyFormat::bf16) {
        std::uint16_t bits = 0;
        std::memcpy(&bits, panel + place / 2 * kQuadBytes + 4 * lane + place % 2 * 2, 2);
        rows[o] = nn::bf16_to_f32(bits);
      } else {
        const std::byte q = panel[value_place(place) + 4 * lane];
        rows[o] = static_cast<float>(std::to_integer<int>(q) - 128) * panels.steps(o / shape.depth)[place];
      }
    }
  }
}

const std::byte* ChunkOfPanels::keys(std::int64_t group) const {
  return reinterpret_cast<const std::byte*>(k_) + group * key_bytes(format_, shape_);
}

const float* ChunkOfPanels::steps(std::int64_t group) const {
  if (format_ != KeyFormat::int8) return nullptr;
  return reinterpret_cast<const float*>(values() + value_bytes(format_, shape_)) + group * kChunk;
}

} // namespace tenon::cpu

#include "kernels/cpu/packed_matrix.hpp"

#include "kernels/cpu/short_exponents.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

namespace tenon::cpu {
namespace {

struct Layout {
  PackedFormat format;
  const char* name;
  std::int64_t inputs; // of one unit
  std::size_t bytes;   // of one unit
  float offset;        // of the numbers as they are packed

  // An inner loop asks: no division by a number that a compiler does not know.
  std::int64_t units(std::int64_t all) const { return (all + inputs - 1) >> std::countr_zero(std::uint64_t(inputs)); }
};

template <PackedFormat F>
constexpr Layout integers(const char* name) {
  return {F, name, kGroup, IntegerUnit<F>::bytes, IntegerUnit<F>::offset};
}

constexpr std::array<Layout, kPackedFormats> kLayouts{{{PackedFormat::bf16, "bf16", 2, 256, 0.0f},
                                                       integers<PackedFormat::int8g32>("int8g32"),
                                                       integers<PackedFormat::int4g32>("int4g32"),
                                                       integers<PackedFormat::int4g32m>("int4g32m"),
                                                       {PackedFormat::bf16e4, "bf16e4", 2, kShortUnit, 0.0f}}};

const Layout& layout(PackedFormat format) { return kLayouts[static_cast<std::size_t>(format)]; }

void store_half(std::byte* at, std::uint16_t bits) { std::memcpy(at, &bits, 2); }
std::uint16_t load_half(const std::byte* at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return bits;
}

// One group of one output: 32 numbers q, unsigned, with their scale and minimum.
struct Group {
  std::uint16_t scale = 0, minimum = 0;
  std::array<std::uint8_t, kGroup> q{};
};

void write_group(PackedFormat format, std::byte* unit, std::int64_t lane, const Group& group) {
  store_half(unit + 2 * lane, group.scale);
  unit += 128;
  if (format == PackedFormat::int4g32m) {
    store_half(unit + 2 * lane, group.minimum);
    unit += 128;
  }
  for (std::int64_t i = 0; i < kGroup; ++i) {
    if (format == PackedFormat::int8g32) {
      unit[i / 4 * 256 + lane * 4 + i % 4] = std::byte(group.q[i]);
    } else if (i < kGroup / 2) {
      unit[i / 4 * 256 + lane * 4 + i % 4] = std::byte(group.q[i] | group.q[i + kGroup / 2] << 4);
    }
  }
}

Group read_group(PackedFormat format, const std::byte* unit, std::int64_t lane) {
  Group group;
  group.scale = load_half(unit + 2 * lane);
  unit += 128;
  if (format == PackedFormat::int4g32m) {
    group.minimum = load_half(unit + 2 * lane);
    unit += 128;
  }
  for (std::int64_t i = 0; i < kGroup; ++i) {
    const std::int64_t quad = format == PackedFormat::int8g32 ? i / 4 : i / 4 % 4;
    const int byte = std::to_integer<int>(unit[quad * 256 + lane * 4 + i % 4]);
    const int q = format == PackedFormat::int8g32 ? byte : i < kGroup / 2 ? byte & 15 : byte >> 4;
    group.q[i] = static_cast<std::uint8_t>(q);
  }
  return group;
}

std::uint8_t step(float value, float inverse, float offset, float last) {
  return static_cast<std::uint8_t>(std::clamp(std::nearbyint(value * inverse) + offset, 0.0f, last));
}

Group quantise(PackedFormat format, const float* w) {
  const auto [low, high] = std::minmax_element(w, w + kGroup);
  Group group;
  if (format == PackedFormat::int4g32m) {
    group.minimum = nn::f32_to_f16(*low);
    const float minimum = nn::f16_to_f32(group.minimum);
    group.scale = nn::f32_to_f16((*high - minimum) / 15.0f);
    const float d = nn::f16_to_f32(group.scale), inverse = d != 0 ? 1.0f / d : 0.0f;
    for (std::int64_t i = 0; i < kGroup; ++i) group.q[i] = step(w[i] - minimum, inverse, 0.0f, 15.0f);
    return group;
  }
  const float extreme = std::abs(*low) > std::abs(*high) ? *low : *high;
  const bool wide = format == PackedFormat::int8g32;
  group.scale = nn::f32_to_f16(wide ? std::abs(extreme) / 127.0f : extreme / -8.0f);
  const float d = nn::f16_to_f32(group.scale), inverse = d != 0 ? 1.0f / d : 0.0f;
  for (std::int64_t i = 0; i < kGroup; ++i)
    group.q[i] = wide ? step(w[i], inverse, 128.0f, 255.0f) : step(w[i], inverse, 8.0f, 15.0f);
  return group;
}

// Signed numbers of Q8_0 become q + 128, as packed.
Group read_block(nn::BlockType type, const std::byte* block) {
  Group group;
  group.scale = load_half(block);
  block += 2;
  if (type == nn::BlockType::Q4_1) {
    group.minimum = load_half(block);
    block += 2;
  }
  for (std::int64_t i = 0; i < kGroup; ++i) {
    const int byte = std::to_integer<int>(block[type == nn::BlockType::Q8_0 ? i : i % 16]);
    group.q[i] = static_cast<std::uint8_t>(type == nn::BlockType::Q8_0 ? byte ^ 128 : i < 16 ? byte & 15 : byte >> 4);
  }
  return group;
}

void check(bool right, const char* what) {
  if (!right) throw std::invalid_argument(std::string("pack: ") + what);
}

std::size_t bytes_of_panel(PackedFormat format, std::int64_t inputs) {
  const Layout& with = layout(format);
  const std::int64_t head = format == PackedFormat::bf16e4 ? short_head(inputs) : 0;
  return static_cast<std::size_t>(head) + static_cast<std::size_t>(with.units(inputs)) * with.bytes;
}

// rows(first, count, out): writes those rows as bfloat16. False where a panel of them has too many exponents.
template <class RowsOf>
bool pack_short(std::int64_t outputs, std::int64_t inputs, const RowsOf& rows, std::byte* out) {
  const std::size_t stride = bytes_of_panel(PackedFormat::bf16e4, inputs);
  std::vector<std::uint16_t> bits(static_cast<std::size_t>(kPanel * inputs));
  std::vector<std::byte> unwanted(out ? 0 : stride);
  for (std::int64_t first = 0; first < outputs; first += kPanel) {
    const std::int64_t count = std::min(kPanel, outputs - first);
    rows(first, count, bits.data());
    std::byte* panel = out ? out + static_cast<std::size_t>(first / kPanel) * stride : unwanted.data();
    if (!pack_short_panel(bits.data(), count, inputs, panel)) return false;
  }
  return true;
}

auto rounded_rows(std::span<const float> weights, std::int64_t inputs) {
  return [=](std::int64_t first, std::int64_t count, std::uint16_t* out) {
    std::transform(weights.data() + first * inputs, weights.data() + (first + count) * inputs, out, nn::f32_to_bf16);
  };
}

auto stored_rows(std::span<const std::byte> blocks, std::int64_t inputs) {
  return [=](std::int64_t first, std::int64_t count, std::uint16_t* out) {
    std::memcpy(out, blocks.data() + 2 * first * inputs, static_cast<std::size_t>(2 * count * inputs));
  };
}

constexpr const char* kTooMany = "bf16e4 does not hold so many exponents";

void check_target(PackedFormat format, std::int64_t outputs, std::int64_t inputs, std::span<std::byte> out) {
  check(packed_bytes(format, outputs, inputs) == out.size(), "the target has another size than the packed matrix");
  std::fill(out.begin(), out.end(), std::byte{0});
}

// Calls place(row, unit, lane, first input) for every unit of every output.
template <class Place>
void for_units(PackedFormat format, std::int64_t outputs, std::int64_t inputs, std::byte* out, const Place& place) {
  const Layout& with = layout(format);
  const std::size_t stride = *panel_bytes(format, inputs);
  for (std::int64_t row = 0; row < outputs; ++row) {
    std::byte* panel = out + static_cast<std::size_t>(row / kPanel) * stride;
    for (std::int64_t first = 0; first < inputs; first += with.inputs)
      place(row, panel + static_cast<std::size_t>(first / with.inputs) * with.bytes, row % kPanel, first);
  }
}

} // namespace

const char* packed_name(PackedFormat format) { return layout(format).name; }

std::optional<PackedFormat> packed_format(std::string_view name) {
  for (const Layout& one : kLayouts)
    if (name == one.name) return one.format;
  return std::nullopt;
}

const std::byte* PackedMatrix::panel(std::int64_t index) const {
  return bytes + static_cast<std::size_t>(index) * bytes_of_panel(format, inputs);
}

std::optional<std::size_t> panel_bytes(PackedFormat format, std::int64_t inputs) {
  if (inputs < 0 || inputs > std::numeric_limits<std::int64_t>::max() / 256) return std::nullopt;
  if (!reads_bf16(format) && inputs % kGroup != 0) return std::nullopt;
  return bytes_of_panel(format, inputs);
}

std::optional<std::size_t> packed_bytes(PackedFormat format, std::int64_t outputs, std::int64_t inputs) {
  const auto panel = panel_bytes(format, inputs);
  if (!panel || outputs < 0) return std::nullopt;
  const auto panels = static_cast<std::size_t>(outputs / kPanel + (outputs % kPanel != 0));
  std::size_t bytes = 0;
  if (__builtin_mul_overflow(panels, *panel, &bytes)) return std::nullopt;
  return bytes;
}

std::optional<PackedFormat> lossless_format(nn::BlockType type) {
  switch (type) {
    case nn::BlockType::BF16: return PackedFormat::bf16;
    case nn::BlockType::Q8_0: return PackedFormat::int8g32;
    case nn::BlockType::Q4_0: return PackedFormat::int4g32;
    case nn::BlockType::Q4_1: return PackedFormat::int4g32m;
    default: return std::nullopt;
  }
}

bool is_lossless(PackedFormat format, nn::BlockType type) {
  return lossless_format(type) == (format == PackedFormat::bf16e4 ? PackedFormat::bf16 : format);
}

PackedFormat shortest_bf16(std::int64_t outputs, std::int64_t inputs, std::span<const float> weights) {
  check(weights.size() == static_cast<std::size_t>(outputs * inputs), "the weights have another size than their shape");
  return pack_short(outputs, inputs, rounded_rows(weights, inputs), nullptr) ? PackedFormat::bf16e4
                                                                             : PackedFormat::bf16;
}

PackedFormat shortest_bf16(std::int64_t outputs, std::int64_t inputs, std::span<const std::byte> blocks) {
  check(blocks.size() == static_cast<std::size_t>(2 * outputs * inputs), "the blocks are not those of this shape");
  return pack_short(outputs, inputs, stored_rows(blocks, inputs), nullptr) ? PackedFormat::bf16e4 : PackedFormat::bf16;
}

void pack(PackedFormat format, std::int64_t outputs, std::int64_t inputs, std::span<const float> weights,
          std::span<std::byte> out) {
  check_target(format, outputs, inputs, out);
  check(weights.size() == static_cast<std::size_t>(outputs * inputs), "the weights have another size than their shape");
  if (format == PackedFormat::bf16e4)
    return check(pack_short(outputs, inputs, rounded_rows(weights, inputs), out.data()), kTooMany);
  for_units(format, outputs, inputs, out.data(),
            [&](std::int64_t row, std::byte* unit, std::int64_t lane, std::int64_t c) {
              const float* from = weights.data() + row * inputs + c;
              if (format != PackedFormat::bf16) return write_group(format, unit, lane, quantise(format, from));
              for (std::int64_t i = 0; i < std::min<std::int64_t>(2, inputs - c); ++i)
                store_half(unit + lane * 4 + i * 2, nn::f32_to_bf16(from[i]));
            });
}

void pack_blocks(PackedFormat format, nn::BlockType type, std::int64_t outputs, std::int64_t inputs,
                 std::span<const std::byte> blocks, std::span<std::byte> out) {
  check(is_lossless(format, type), "this format does not hold these blocks without loss");
  check_target(format, outputs, inputs, out);
  const auto row = nn::row_bytes(type, static_cast<std::size_t>(inputs));
  check(row && blocks.size() / std::max<std::size_t>(*row, 1) == static_cast<std::size_t>(outputs) &&
            blocks.size() == *row * static_cast<std::size_t>(outputs),
        "the blocks are not those of this shape");
  if (format == PackedFormat::bf16e4)
    return check(pack_short(outputs, inputs, stored_rows(blocks, inputs), out.data()), kTooMany);
  for_units(
      format, outputs, inputs, out.data(), [&](std::int64_t r, std::byte* unit, std::int64_t lane, std::int64_t c) {
        const std::byte* from = blocks.data() + static_cast<std::size_t>(r) * *row;
        if (format != PackedFormat::bf16)
          return write_group(format, unit, lane,
                             read_block(type, from + static_cast<std::size_t>(c / kGroup) * nn::block_bytes(type)));
        for (std::int64_t i = 0; i < std::min<std::int64_t>(2, inputs - c); ++i)
          std::memcpy(unit + lane * 4 + i * 2, from + 2 * (c + i), 2);
      });
}

void unpack_row(const PackedMatrix& matrix, std::int64_t row, std::span<float> out) {
  check(out.size() == static_cast<std::size_t>(matrix.inputs), "the target is no row of this matrix");
  const Layout& with = layout(matrix.format);
  const std::byte* unit = matrix.panel(row / kPanel);
  const std::int64_t lane = row % kPanel;
  if (matrix.format == PackedFormat::bf16e4) {
    const ShortPanel panel(unit, matrix.inputs);
    for (std::int64_t c = 0; c < matrix.inputs; ++c) out[c] = nn::bf16_to_f32(panel.bits(c / 2, lane, c % 2));
    for (const Outlier& one : std::span(panel.outliers, panel.outlier_count))
      if (one.output == lane && one.input < out.size()) out[one.input] = nn::bf16_to_f32(one.bits);
    return;
  }
  for (std::int64_t c = 0; c < matrix.inputs; c += with.inputs, unit += with.bytes) {
    if (matrix.format == PackedFormat::bf16) {
      for (std::int64_t i = 0; i < std::min<std::int64_t>(2, matrix.inputs - c); ++i)
        out[c + i] = nn::bf16_to_f32(load_half(unit + lane * 4 + i * 2));
      continue;
    }
    const Group group = read_group(matrix.format, unit, lane);
    const float d = nn::f16_to_f32(group.scale), m = nn::f16_to_f32(group.minimum);
    for (std::int64_t i = 0; i < kGroup; ++i) {
      const float q = static_cast<float>(group.q[i]) - with.offset;
      out[c + i] = matrix.format == PackedFormat::int4g32m ? q * d + m : q * d;
    }
  }
}

} // namespace tenon::cpu

// bfloat16 in 12 bits, without loss. Weights are small numbers about zero: the exponents of a panel are nearly all
// among fifteen, which four bits name. The few outliers stand beside the panel, as they are. (That exponents of trained
// weights hold 2 to 3 bits of information: Zhang et al. 2025, arXiv 2504.11651, section 2.)
//
//   panel   64 bytes: 16 exponents, the first 0, and u16 number of outliers; room for outliers of 8 bytes; then units
//   unit    of 2 inputs and 64 outputs: 128 x {sign, 7 bits of mantissa}; 64 x two numbers of exponents
//
// Of an outlier the unit holds zero. Inside a unit numbers stand so that interleaving bytes, 16 by 16, makes the pairs
// of a plain bf16 panel: short_place says where; the exponent is the low half of the byte at that place, modulo 64,
// where the place is below 64, and else the high half.
//
// Thread: pure functions; any.
#pragma once

#include "kernels/blocks.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tenon::cpu {

constexpr std::int64_t kShortUnit = 192; // bytes of a unit

struct Outlier {
  std::uint32_t input;
  std::uint16_t output, bits; // within the panel; bfloat16
};
static_assert(sizeof(Outlier) == 8);

// Outliers a panel has room for.
constexpr std::int64_t outliers_held(std::int64_t inputs) { return inputs < 1000000 ? 8 + inputs / 16 : 65535; }
constexpr std::int64_t short_head(std::int64_t inputs) { return 64 + (8 * outliers_held(inputs) + 63) / 64 * 64; }

struct ShortPanel {
  const std::uint8_t* exponents; // 16
  const Outlier* outliers;
  std::size_t outlier_count;
  const std::byte* units;

  // Dissolves in its callers: a copy compiled for one tier must not be linked into another.
  __attribute__((always_inline)) ShortPanel(const std::byte* panel, std::int64_t inputs)
      : exponents(reinterpret_cast<const std::uint8_t*>(panel)),
        outliers(reinterpret_cast<const Outlier*>(panel + 64)),
        units(panel + short_head(inputs)) {
    std::uint16_t count;
    std::memcpy(&count, panel + 16, 2);
    const auto held = static_cast<std::size_t>(outliers_held(inputs)); // whatever the file says
    outlier_count = count < held ? count : held;
  }
  // Of the unit at `pair`: the bits of output l and input b.
  std::uint16_t bits(std::int64_t pair, std::int64_t l, std::int64_t b) const;
};

// Where a number stands in its unit: the byte, and that of its exponent.
constexpr std::int64_t short_place(std::int64_t l, std::int64_t b) {
  const std::int64_t j = l / 16, t = 2 * (l % 16) + b;
  return 64 * (j / 2) + 16 * (t / 8) + 8 * (j % 2) + t % 8;
}

inline std::uint16_t ShortPanel::bits(std::int64_t pair, std::int64_t l, std::int64_t b) const {
  const std::byte* unit = units + pair * kShortUnit;
  const std::int64_t place = short_place(l, b);
  const auto number = std::to_integer<unsigned>(unit[place]), both = std::to_integer<unsigned>(unit[128 + place % 64]);
  const unsigned exponent = exponents[place < 64 ? both & 15 : both >> 4];
  return static_cast<std::uint16_t>((number & 0x80) << 8 | exponent << 7 | (number & 0x7f));
}

// Packs one panel of rows (outputs, inputs) of bfloat16, outputs <= 64; false, and nothing is written, where exponents
// are too many. Requires: out is zeros.
bool pack_short_panel(const std::uint16_t* rows, std::int64_t outputs, std::int64_t inputs, std::byte* out);

// Adds to out (rows, 64) what a panel's outliers make of rows of bfloat16.
static inline void add_outliers(const ShortPanel& panel, const std::uint16_t* x, std::int64_t x_stride,
                                std::int64_t rows, float* out, std::int64_t stride) {
  for (std::size_t i = 0; i < panel.outlier_count; ++i) {
    const Outlier& one = panel.outliers[i];
    if (one.input >= x_stride || one.output >= 64) continue; // a broken file
    for (std::int64_t r = 0; r < rows; ++r)
      out[r * stride + one.output] += nn::bf16_to_f32(x[r * x_stride + one.input]) * nn::bf16_to_f32(one.bits);
  }
}

} // namespace tenon::cpu

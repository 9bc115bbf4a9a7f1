#include "kernels/cpu/short_exponents.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

namespace tenon::cpu {
namespace {

constexpr std::size_t exponent_of(std::uint16_t bits) { return bits >> 7 & 0xff; }

} // namespace

bool pack_short_panel(const std::uint16_t* rows, std::int64_t outputs, std::int64_t inputs, std::byte* out) {
  const std::int64_t all = outputs * inputs;
  std::array<std::int64_t, 256> count{};
  for (std::int64_t i = 0; i < all; ++i) ++count[exponent_of(rows[i])];
  std::array<std::uint8_t, 255> others; // than zero's, the most frequent first
  std::iota(others.begin(), others.end(), std::uint8_t{1});
  std::stable_sort(others.begin(), others.end(), [&](auto a, auto b) { return count[a] > count[b]; });
  std::array<std::uint8_t, 16> exponents{};
  std::copy_n(others.begin(), 15, exponents.begin() + 1);
  std::array<int, 256> number;
  number.fill(-1);
  for (int i = 15; i >= 0; --i) number[exponents[static_cast<std::size_t>(i)]] = i;

  std::vector<Outlier> outliers;
  for (std::int64_t c = 0; c < inputs; ++c)
    for (std::int64_t l = 0; l < outputs; ++l)
      if (const std::uint16_t bits = rows[l * inputs + c]; number[exponent_of(bits)] < 0)
        outliers.push_back({static_cast<std::uint32_t>(c), static_cast<std::uint16_t>(l), bits});
  if (static_cast<std::int64_t>(outliers.size()) > outliers_held(inputs)) return false;

  const auto held = static_cast<std::uint16_t>(outliers.size());
  std::memcpy(out, exponents.data(), exponents.size());
  std::memcpy(out + 16, &held, 2);
  if (held > 0) std::memcpy(out + 64, outliers.data(), held * sizeof(Outlier));
  std::byte* units = out + short_head(inputs);
  for (std::int64_t l = 0; l < outputs; ++l)
    for (std::int64_t c = 0; c < inputs; ++c) {
      const std::uint16_t bits = rows[l * inputs + c];
      const int exponent = number[exponent_of(bits)];
      if (exponent < 0) continue;
      std::byte* unit = units + c / 2 * kShortUnit;
      const std::int64_t place = short_place(l, c % 2);
      unit[place] = std::byte((bits >> 8 & 0x80) | (bits & 0x7f));
      unit[128 + place % 64] |= std::byte(place < 64 ? exponent : exponent << 4);
    }
  return true;
}

} // namespace tenon::cpu

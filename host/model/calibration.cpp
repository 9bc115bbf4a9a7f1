#include "host/model/calibration.hpp"

#include <algorithm>

namespace tenon {
namespace {

constexpr std::int64_t kStretchTokens = 1024, kParts = 5;

// Shorter where the text is short, and never shorter than a block.
std::int64_t stretch_of(std::int64_t tokens, std::int64_t length) {
  return std::max(length, std::min(kStretchTokens, tokens / (4 * kParts) / length * length));
}

} // namespace

std::vector<std::uint32_t> calibration_blocks(const Shard& calibration, std::int64_t length, CalibrationPart part) {
  const std::int64_t stretch = stretch_of(static_cast<std::int64_t>(calibration.tokens().size()), length);
  const auto part_at = [&](std::int64_t token) {
    return token / stretch % kParts == kParts - 1 ? CalibrationPart::prior : CalibrationPart::training;
  };
  std::vector<std::uint32_t> out;
  const auto count = static_cast<std::int64_t>(calibration.block_count(static_cast<std::size_t>(length)));
  for (std::int64_t i = 0; i < count; ++i)
    if (part_at(i * length) == part && part_at((i + 1) * length - 1) == part)
      out.push_back(static_cast<std::uint32_t>(i));
  return out;
}

} // namespace tenon

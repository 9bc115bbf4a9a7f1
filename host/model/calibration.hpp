// How the calibration text D_0 is divided, the same for everybody: four fifths are for whoever trains (rows, KL), one
// fifth is kept from training, for fitting the base's prior. Thread: pure functions.
#pragma once

#include "host/formats/shards.hpp"

#include <cstdint>
#include <vector>

namespace tenon {

enum class CalibrationPart { training, prior };

// The blocks of `length` tokens that lie wholly in one part, ascending. Stretches of D_0, not single blocks, take
// turns, so that the parts share few documents; every kind of text is in both.
std::vector<std::uint32_t> calibration_blocks(const Shard& calibration, std::int64_t length, CalibrationPart part);

} // namespace tenon

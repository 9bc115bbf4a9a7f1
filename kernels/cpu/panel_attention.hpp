// Attention over one chunk of keys and values that are kept as panels: scores and sums are products of packed matrices,
// by the kernels that all products use. Inside kernels/cpu only. Thread: pure function; any.
#pragma once

#include "kernels/cpu/key_values.hpp"

namespace tenon::cpu {

// Requires: format is not float32; the tile's panels.
void attend_panels(const Kernels& kernels, KeyFormat format, const AttentionTile& tile);

} // namespace tenon::cpu

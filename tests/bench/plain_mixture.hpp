// A mixture layer as one would write it for one processor and one format: bfloat16 weights, gate and up side by side in
// a panel, no choice of tier, epilogue in registers. What the general operator must not be slower than.
// Requires: widths that are multiples of 64. Thread: one call at a time.
#pragma once

#include "kernels/cpu/mixture.hpp"

namespace tenon::cpu::bench {

struct PlainLayer {
  std::int64_t experts = 0, width = 0, inner = 0;
  const std::uint16_t* first = nullptr;  // (E, F/32, C/2, 64, 2): per panel 32 outputs of gate, then 32 of up
  const std::uint16_t* second = nullptr; // (E, C/64, F/2, 64, 2)
};

// x, y (N,C) in bfloat16. Requires: every choice is an expert; AVX-512 with BF16, or AVX2.
using PlainMix = void(Pool& pool, const PlainLayer& layer, const Choices& choices, const std::uint16_t* x,
                      std::uint16_t* y);
PlainMix plain_mix_avx512, plain_mix_avx2;

} // namespace tenon::cpu::bench

// What tiles of every kind of product have in common in AVX-512: their sums, and which processors ask memory for what.
// Included by kernels_avx512.cpp alone, and compiled with its flags.
#pragma once

#include "kernels/cpu/ahead.hpp"

#include <immintrin.h>

namespace tenon::cpu {
namespace {

constexpr int kVectors = 4; // of a panel

template <int R>
TENON_INLINE void begin(__m512 (&sum)[R][kVectors], const float* out, std::int64_t stride, bool fresh) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j)
      sum[r][j] = fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(out + r * stride + 16 * j);
}

template <int R>
TENON_INLINE void finish(const __m512 (&sum)[R][kVectors], float* out, std::int64_t stride) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) _mm512_storeu_ps(out + r * stride + 16 * j, sum[r][j]);
}

// AMD's processors with AVX-512, family 25 and those after it, differ in how much they ask memory for by themselves.
bool older_amd() { return __builtin_cpu_is("amdfam19h"); }
bool newer_amd() { return __builtin_cpu_is("amd") && !older_amd(); }

// More rows than one, and few tiles: asking ahead makes Intel's processors 1.3 to 1.7 times as fast and AMD's of family
// 26 1.1 to 1.6 times, but those of family 25, whose own prefetchers suffice, slower.
bool asks_for_few() { return !older_amd(); }

} // namespace
} // namespace tenon::cpu

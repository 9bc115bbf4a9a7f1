// Compiled with AVX2 and FMA: bfloat16 is widened to float32, in which all is multiplied and added up.
#include "tests/bench/plain_mixture_layer.hpp"

#include <immintrin.h>

#include <cstring>

namespace tenon::cpu::bench {
namespace {

// As in plain_mixture_avx512.cpp.
inline __m256 exponential(__m256 x) {
  const __m256 t = _mm256_mul_ps(_mm256_max_ps(x, _mm256_set1_ps(-87.0f)), _mm256_set1_ps(1.44269504f)),
               n = _mm256_round_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm256_sub_ps(t, n);
  __m256 p = _mm256_set1_ps(1.8775767e-3f);
  for (const float next : {8.9893397e-3f, 5.5826318e-2f, 2.4015361e-1f, 6.9315308e-1f, 1.0f})
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(next));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

inline __m256 silu(__m256 g) {
  return _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), exponential(_mm256_sub_ps(_mm256_setzero_ps(), g))));
}

// Of pairs of bfloat16 the first numbers, and the second.
inline __m256 even(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
inline __m256 odd(__m256i pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

// To the nearest, ties to even.
inline void store_narrow(__m256 numbers, std::uint16_t* out) {
  const __m256i bits = _mm256_castps_si256(numbers),
                last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1)),
                up = _mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7fff))),
                halves = _mm256_srli_epi32(up, 16);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                   _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
}

struct Vectors {
  using Sums = __m256[8];
  static constexpr std::int64_t kMost = 3, kLanes = 8;

  // One row takes the whole panel at once; of more, registers hold the sums of half of it.
  template <int R>
  static void multiply(const std::uint16_t* const* rows, const std::uint16_t* panel, std::int64_t inputs,
                       Sums (&sum)[R]) {
    if constexpr (R == 1) {
      multiply<R, 0, 8>(rows, panel, inputs, sum);
    } else {
      multiply<R, 0, 4>(rows, panel, inputs, sum);
      multiply<R, 4, 8>(rows, panel, inputs, sum);
    }
  }

  static void gated(const Sums& sum, std::uint16_t* out) {
    for (int j = 0; j < 4; ++j) store_narrow(_mm256_mul_ps(silu(sum[j]), sum[j + 4]), out + 8 * j);
  }

  static void store(const Sums& sum, float* out) {
    for (int j = 0; j < 8; ++j) _mm256_storeu_ps(out + 8 * j, sum[j]);
  }

  static void add_up(const Choices& choices, const std::int32_t* place_S, const float* from, std::int64_t width,
                     std::int64_t t, std::uint16_t* y) {
    __m256 sum = _mm256_setzero_ps();
    for (std::int64_t i = t * choices.each; i < (t + 1) * choices.each; ++i)
      sum = _mm256_fmadd_ps(_mm256_set1_ps(choices.strengths[i]), _mm256_loadu_ps(from + place_S[i] * width), sum);
    store_narrow(sum, y);
  }

 private:
  // Vectors first to last - 1 of the panel. Few rows wait for memory, and ask for what comes a page later.
  template <int R, int first, int last>
  static void multiply(const std::uint16_t* const* rows, const std::uint16_t* panel, std::int64_t inputs,
                       Sums (&sum)[R]) {
    __m256 part[R][last - first] = {};
    for (std::int64_t c = 0; c < inputs; c += 2, panel += 128) {
      __m256i a[R];
      for (int r = 0; r < R; ++r) {
        std::int32_t pair;
        std::memcpy(&pair, rows[r] + c, 4);
        a[r] = _mm256_set1_epi32(pair);
      }
#pragma GCC unroll 8
      for (int j = first; j < last; ++j) {
        const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + 16 * j));
        if (R <= 2 && j % 2 == 0) _mm_prefetch(reinterpret_cast<const char*>(panel + kAhead + 16 * j), _MM_HINT_T0);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          part[r][j - first] = _mm256_fmadd_ps(even(a[r]), even(w), part[r][j - first]);
          part[r][j - first] = _mm256_fmadd_ps(odd(a[r]), odd(w), part[r][j - first]);
        }
      }
    }
    for (int r = 0; r < R; ++r)
      for (int j = first; j < last; ++j) sum[r][j] = part[r][j - first];
  }
};

} // namespace

void plain_mix_avx2(Pool& pool, const PlainLayer& layer, const Choices& choices, const std::uint16_t* x,
                    std::uint16_t* y) {
  mix_plainly<Vectors>(pool, layer, choices, x, y);
}

} // namespace tenon::cpu::bench

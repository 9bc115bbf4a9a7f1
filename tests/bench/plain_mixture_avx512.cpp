// Compiled with AVX-512 F, BW, VL, DQ and BF16.
#include "tests/bench/plain_mixture_layer.hpp"

#include <immintrin.h>

#include <cstring>

namespace tenon::cpu::bench {
namespace {

// exp by a polynomial of degree 5; a few units in the last place of bfloat16's neighbours do not matter here.
inline __m512 exponential(__m512 x) {
  const __m512 t = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(1.44269504f)),
               n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(t, n);
  __m512 p = _mm512_set1_ps(1.8775767e-3f);
  for (const float next : {8.9893397e-3f, 5.5826318e-2f, 2.4015361e-1f, 6.9315308e-1f, 1.0f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(next));
  return _mm512_scalef_ps(p, n);
}

inline __m512 silu(__m512 g) {
  return _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), exponential(_mm512_sub_ps(_mm512_setzero_ps(), g))));
}

struct Vectors {
  using Sums = __m512[4];
  static constexpr std::int64_t kMost = 6, kLanes = 16;

  // Few rows wait for memory, and ask for what comes a page later.
  template <int R>
  static void multiply(const std::uint16_t* const* rows, const std::uint16_t* panel, std::int64_t inputs,
                       Sums (&sum)[R]) {
    for (auto& row : sum)
      for (__m512& one : row) one = _mm512_setzero_ps();
    for (std::int64_t c = 0; c < inputs; c += 2, panel += 128) {
      __m512bh w[4];
      for (int j = 0; j < 4; ++j) {
        w[j] = (__m512bh)_mm512_loadu_si512(panel + 32 * j);
        if constexpr (R <= 2) _mm_prefetch(reinterpret_cast<const char*>(panel + kAhead + 32 * j), _MM_HINT_T0);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        std::int32_t pair;
        std::memcpy(&pair, rows[r] + c, 4);
        const auto a = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 8
        for (int j = 0; j < 4; ++j) sum[r][j] = _mm512_dpbf16_ps(sum[r][j], a, w[j]);
      }
    }
  }

  static void gated(const Sums& sum, std::uint16_t* out) {
    _mm512_storeu_si512(
        out, (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(silu(sum[1]), sum[3]), _mm512_mul_ps(silu(sum[0]), sum[2])));
  }

  static void store(const Sums& sum, float* out) {
    for (int j = 0; j < 4; ++j) _mm512_storeu_ps(out + 16 * j, sum[j]);
  }

  static void add_up(const Choices& choices, const std::int32_t* place_S, const float* from, std::int64_t width,
                     std::int64_t t, std::uint16_t* y) {
    __m512 sum = _mm512_setzero_ps();
    for (std::int64_t i = t * choices.each; i < (t + 1) * choices.each; ++i)
      sum = _mm512_fmadd_ps(_mm512_set1_ps(choices.strengths[i]), _mm512_loadu_ps(from + place_S[i] * width), sum);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), (__m256i)_mm512_cvtneps_pbh(sum));
  }
};

} // namespace

void plain_mix_avx512(Pool& pool, const PlainLayer& layer, const Choices& choices, const std::uint16_t* x,
                      std::uint16_t* y) {
  mix_plainly<Vectors>(pool, layer, choices, x, y);
}

} // namespace tenon::cpu::bench

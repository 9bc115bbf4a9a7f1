// Compiled with AVX-512 F, BW, VL, DQ and BF16.
#include "tests/bench/plain_mixture.hpp"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace tenon::cpu::bench {
namespace {

constexpr std::int64_t kMost = 6; // rows of a tile

struct Sorted {
  std::vector<std::int32_t> row_P, place_S, active; // row of a place, place of a choice, experts that somebody chose
  std::vector<std::int32_t> first_E, count_E;
};

Sorted sorted(const PlainLayer& layer, const Choices& choices) {
  const std::int64_t all = choices.rows * choices.each;
  Sorted out;
  out.row_P.resize(all), out.place_S.resize(all), out.first_E.resize(layer.experts), out.count_E.resize(layer.experts);
  for (std::int64_t i = 0; i < all; ++i) ++out.count_E[choices.experts[i]];
  std::int32_t places = 0;
  for (std::int32_t e = 0; e < layer.experts; ++e) {
    out.first_E[e] = std::exchange(places, places + out.count_E[e]);
    if (out.count_E[e] > 0) out.active.push_back(e);
  }
  std::vector<std::int32_t> next = out.first_E;
  for (std::int64_t i = 0; i < all; ++i) {
    out.place_S[i] = next[choices.experts[i]]++;
    out.row_P[out.place_S[i]] = static_cast<std::int32_t>(i / choices.each);
  }
  return out;
}

// sum (R, 64) = rows of x times one panel.
template <int R>
inline void multiply(const std::uint16_t* const* rows, const std::uint16_t* panel, std::int64_t inputs,
                     __m512 (&sum)[R][4]) {
  for (auto& row : sum)
    for (__m512& one : row) one = _mm512_setzero_ps();
  for (std::int64_t c = 0; c < inputs; c += 2, panel += 128) {
    __m512bh w[4];
    for (int j = 0; j < 4; ++j) w[j] = (__m512bh)_mm512_loadu_si512(panel + 32 * j);
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

// tile<R>(first row) until none is left.
template <int R, class Tile>
void for_rows(std::int64_t rows, const Tile& tile) {
  std::int64_t i = 0;
  for (; rows - i >= R; i += R) tile.template operator()<R>(i);
  if constexpr (R > 1) {
    if (rows > i) for_rows<R - 1>(rows - i, [&]<int Q>(std::int64_t next) { tile.template operator()<Q>(i + next); });
  }
}

// each(expert, panel) over all panels of active experts, a few panels a task.
template <class Each>
void for_panels(Pool& pool, const Sorted& rows, std::int64_t panels, std::int64_t most, const Each& each) {
  const auto active = static_cast<std::int64_t>(rows.active.size());
  const std::int64_t few = std::clamp<std::int64_t>(panels * active / 16, 1, most), parts = (panels + few - 1) / few;
  pool.run(active * parts, [&](std::int64_t task) {
    for (std::int64_t p = task % parts * few; p < std::min(panels, (task % parts + 1) * few); ++p)
      each(rows.active[task / parts], p);
  });
}

void add_up(const PlainLayer& layer, const Choices& choices, const Sorted& rows, const float* out_PC, std::int64_t t,
            std::uint16_t* y) {
  for (std::int64_t c = 0; c < layer.width; c += 16) {
    __m512 sum = _mm512_setzero_ps();
    for (std::int64_t i = t * choices.each; i < (t + 1) * choices.each; ++i)
      sum = _mm512_fmadd_ps(_mm512_set1_ps(choices.strengths[i]),
                            _mm512_loadu_ps(out_PC + rows.place_S[i] * layer.width + c), sum);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + t * layer.width + c), (__m256i)_mm512_cvtneps_pbh(sum));
  }
}

} // namespace

void plain_mix(Pool& pool, const PlainLayer& layer, const Choices& choices, const std::uint16_t* x, std::uint16_t* y) {
  static std::vector<std::uint16_t> inner;
  static std::vector<float> out;
  const std::int64_t all = choices.rows * choices.each, width = layer.width, wide = layer.inner;
  inner.resize(all * wide), out.resize(all * width);
  const Sorted rows = sorted(layer, choices);
  for_panels(pool, rows, wide / 32, 8, [&](std::int64_t e, std::int64_t p) {
    const std::uint16_t* panel = layer.first + (e * (wide / 32) + p) * 64 * width;
    for_rows<kMost>(rows.count_E[e], [&]<int R>(std::int64_t i) {
      const std::uint16_t* from[R];
      for (int r = 0; r < R; ++r) from[r] = x + rows.row_P[rows.first_E[e] + i + r] * width;
      __m512 sum[R][4];
      multiply<R>(from, panel, width, sum);
      for (int r = 0; r < R; ++r)
        _mm512_storeu_si512(inner.data() + (rows.first_E[e] + i + r) * wide + p * 32,
                            (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(silu(sum[r][1]), sum[r][3]),
                                                         _mm512_mul_ps(silu(sum[r][0]), sum[r][2])));
    });
  });
  for_panels(pool, rows, width / 64, 4, [&](std::int64_t e, std::int64_t p) {
    const std::uint16_t* panel = layer.second + (e * (width / 64) + p) * 64 * wide;
    for_rows<kMost>(rows.count_E[e], [&]<int R>(std::int64_t i) {
      const std::uint16_t* from[R];
      for (int r = 0; r < R; ++r) from[r] = inner.data() + (rows.first_E[e] + i + r) * wide;
      __m512 sum[R][4];
      multiply<R>(from, panel, wide, sum);
      for (int r = 0; r < R; ++r)
        for (int j = 0; j < 4; ++j)
          _mm512_storeu_ps(out.data() + (rows.first_E[e] + i + r) * width + p * 64 + 16 * j, sum[r][j]);
    });
  });
  constexpr std::int64_t block = 16;
  pool.run((choices.rows + block - 1) / block, [&](std::int64_t task) {
    for (std::int64_t t = task * block; t < std::min(choices.rows, (task + 1) * block); ++t)
      add_up(layer, choices, rows, out.data(), t, y);
  });
}

} // namespace tenon::cpu::bench

// Products with integers in AVX-512: VNNI multiplies, and adds in 32 bits.
// Included by kernels_avx512.cpp alone, and compiled with its flags.
#pragma once

#include "kernels/cpu/tiles_avx512.hpp"

namespace tenon::cpu {
namespace {

__m512 halves(const std::byte* at) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))); }

constexpr int kQuads = 8; // of a group
constexpr int kAsks = 8;  // for memory ahead, a group
constexpr int kTile = 4;  // rows of a tile at most

template <PackedFormat F>
constexpr int kParts = IntegerUnit<F>::wide ? 1 : 2; // of a byte

template <PackedFormat F>
Reach reach() {
  if (IntegerUnit<F>::wide) return newer_amd() ? Reach{8192, true} : Reach{4096};
  return newer_amd() ? Reach{12288, true} : Reach{8192};
}

// What rows [row, row + R) of one group need beside their integers.
template <int R>
struct RowGroup {
  const std::int8_t* q[R];
  float step[R];
  std::int32_t total[R], base[R]; // of the integers; what the weights' offset makes of them

  TENON_INLINE RowGroup(const Activations& x, std::int64_t row, std::int64_t group, int offset) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::int64_t at = (row + r) * x.groups() + group;
      q[r] = x.q + (row + r) * x.width + group * kGroup;
      step[r] = x.scale[at], total[r] = x.sum[at], base[r] = -offset * x.sum[at];
    }
  }
};

// sum + step (whole d + total m); without minima sum + step whole d.
template <bool minimum>
TENON_INLINE __m512 add_group(__m512i whole, __m512 d, std::int32_t total, __m512 m, float step, __m512 sum) {
  const __m512 numbers = _mm512_cvtepi32_ps(whole), steps = _mm512_set1_ps(step);
  if constexpr (!minimum) return _mm512_fmadd_ps(_mm512_mul_ps(numbers, steps), d, sum);
  const __m512 shift = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_set1_epi32(total)), m);
  return _mm512_fmadd_ps(_mm512_fmadd_ps(numbers, d, shift), steps, sum);
}

// Quad k of a group for J vectors of outputs; where two integers stand in a byte, quad k + 4 as well.
template <PackedFormat F, int J>
TENON_INLINE void load_quads(const std::byte* at, __m512i (&w)[kParts<F>][J]) {
  const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 8
  for (int j = 0; j < J; ++j) {
    w[0][j] = _mm512_loadu_si512(at + 64 * j);
    if constexpr (kParts<F> == 2) {
      w[1][j] = _mm512_and_si512(_mm512_srli_epi16(w[0][j], 4), low);
      w[0][j] = _mm512_and_si512(w[0][j], low);
    }
  }
}

// R rows times groups [group, group + groups), whose weights begin at `unit`; J vectors of outputs at a time: as many
// as their integer sums leave room for.
template <PackedFormat F, int R, int J>
void integer_tile(const std::byte* unit, std::int64_t group, std::int64_t groups, const Activations& x,
                  std::int64_t row, float* out, std::int64_t stride, Ahead ahead) {
  using Unit = IntegerUnit<F>;
  constexpr int steps = kQuads / kParts<F>;
  __m512 sum[R][kVectors];
  begin<R>(sum, out, stride, group == 0);
  for (std::int64_t g = group; g < group + groups; ++g, unit += Unit::bytes) {
    ahead.read(unit);
    RowGroup<R> rows(x, row, g, Unit::offset);
#pragma GCC unroll 4
    for (int first = 0; first < kVectors; first += J) {
      __m512i whole[R][J];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        asm volatile("" : "+r"(rows.q[r])); // else numbers spread over lanes wait on the stack for the next vectors
#pragma GCC unroll 8
        for (int j = 0; j < J; ++j) whole[r][j] = _mm512_set1_epi32(rows.base[r]);
      }
#pragma GCC unroll 8
      for (int k = 0; k < steps; ++k) {
        __m512i w[kParts<F>][J];
        load_quads<F, J>(unit + Unit::head + 256 * k + 64 * first, w);
        if (k % (steps * kVectors / (J * kAsks)) == 0) ahead.fetch();
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
          for (int i = 0; i < kParts<F>; ++i) {
            const __m512i a = _mm512_set1_epi32(quad(rows.q[r] + 4 * (k + i * steps)));
#pragma GCC unroll 8
            for (int j = 0; j < J; ++j) whole[r][j] = _mm512_dpbusd_epi32(whole[r][j], w[i][j], a);
          }
      }
#pragma GCC unroll 8
      for (int j = 0; j < J; ++j) {
        const std::byte* at = unit + 32 * (first + j);
        const __m512 d = halves(at), m = Unit::minimum ? halves(at + 128) : d;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
          sum[r][first + j] =
              add_group<Unit::minimum>(whole[r][j], d, rows.total[r], m, rows.step[r], sum[r][first + j]);
      }
    }
  }
  finish<R>(sum, out, stride);
}

// Many rows take what stays in the first cache of a panel, tile by tile, before they go on.
template <PackedFormat F, int Most>
void integer_tiles(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                   std::int64_t stride) {
  using Unit = IntegerUnit<F>;
  constexpr std::int64_t block = 6 * kParts<F>; // groups
  const std::int64_t tiles = (rows + Most - 1) / Most, groups = tiles == 1 ? x.groups() : block;
  // asks_for_few says why wide ones under few rows, but more than one, may be left unasked.
  const int lines =
      Unit::wide && rows > 1 && rows <= kTile && !asks_for_few() ? 0 : (Unit::bytes / 64 + kAsks - 1) / kAsks;
  std::int64_t g = 0;
  do {
    const std::int64_t count = x.groups() - g < groups ? x.groups() - g : groups;
    const std::byte* unit = panel.at + g * Unit::bytes;
    for_tiles<Most>(rows, [&]<int R>(std::int64_t r) {
      constexpr int vectors = Unit::wide && R < kTile ? kVectors : 2;
      integer_tile<F, R, vectors>(unit, g, count, x, first + r, out + r * stride, stride,
                                  Ahead(reach<F>(), unit, count * kAsks, lines, r / Most, tiles, 2)
                                      .jump(unit + count * Unit::bytes, panel.then));
    });
  } while ((g += groups) < x.groups());
}

template <PackedFormat F>
void integer_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                     std::int64_t stride) {
  if (IntegerUnit<F>::wide && rows > 2 * kTile) return integer_tiles<F, 3>(panel, x, first, rows, out, stride);
  integer_tiles<F, kTile>(panel, x, first, rows, out, stride);
}

} // namespace
} // namespace tenon::cpu

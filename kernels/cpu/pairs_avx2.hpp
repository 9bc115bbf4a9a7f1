// Products with pairs of bfloat16 in AVX2: rows and pairs are widened to float32, which FMA multiplies.
// Included by kernels_avx2.cpp alone, and compiled with its flags.
#pragma once

#include "kernels/cpu/short_exponents.hpp"

#include <immintrin.h>

#include <cstring>

namespace tenon::cpu {
namespace {

__m256i pairs_at(const std::byte* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

constexpr std::int64_t kPairsReach = 1536; // bytes ahead; the fastest of what was tried from 256 to 8192
constexpr std::int64_t kShortReach = 2304; // likewise, of short exponents
constexpr int kPairRows = 6;               // of a tile

// Pairs that all passes go over before the next ones, and rows widened for them: in the first cache. Meanwhile memory
// is asked for as many behind them; few rows, which wait for memory, go on in short steps.
constexpr std::int64_t kBlockPairs = 64;
constexpr std::int64_t block_pairs(std::int64_t rows) {
  return rows <= 2 ? 8 : rows <= 4 ? 16 : rows <= kPairRows ? 32 : kBlockPairs;
}

void widen(const std::uint16_t* x, std::int64_t count, float* out) {
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i lanes = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i)));
    _mm256_storeu_ps(out + i, _mm256_castsi256_ps(_mm256_slli_epi32(lanes, 16)));
  }
  for (; i < count; ++i) out[i] = nn::bf16_to_f32(x[i]);
}

// sums += x w: of three rows, w the first or second numbers of eight pairs; of one row, w two vectors of them. In
// assembly: a compiler would take all numbers at once, into registers that there are not.
template <int Half>
TENON_INLINE void add_three(__m256& sum0, __m256& sum1, __m256& sum2, const __m256 (&x)[3], const std::byte* pairs) {
  alignas(32) static constexpr std::uint32_t upper[] = {0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000,
                                                        0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000};
  const auto& at = *reinterpret_cast<const __m256i*>(pairs);
  __m256 w;
  if constexpr (Half == 0)
    asm("vmovdqu %[at], %[w]\n\t"
        "vpslld $16, %[w], %[w]\n\t"
        "vfmadd231ps %[w], %[x0], %[sum0]\n\t"
        "vfmadd231ps %[w], %[x1], %[sum1]\n\t"
        "vfmadd231ps %[w], %[x2], %[sum2]"
        : [sum0] "+x"(sum0), [sum1] "+x"(sum1), [sum2] "+x"(sum2), [w] "=&x"(w)
        : [x0] "x"(x[0]), [x1] "x"(x[1]), [x2] "x"(x[2]), [at] "m"(at));
  else
    asm("vmovdqa %[upper], %[w]\n\t"
        "vpand %[at], %[w], %[w]\n\t"
        "vfmadd231ps %[w], %[x0], %[sum0]\n\t"
        "vfmadd231ps %[w], %[x1], %[sum1]\n\t"
        "vfmadd231ps %[w], %[x2], %[sum2]"
        : [sum0] "+x"(sum0), [sum1] "+x"(sum1), [sum2] "+x"(sum2), [w] "=&x"(w)
        : [x0] "x"(x[0]), [x1] "x"(x[1]), [x2] "x"(x[2]), [at] "m"(at), [upper] "m"(upper));
}
TENON_INLINE void add_two(__m256 (&sum)[2], const float& x, const __m256 (&w)[2]) {
  __m256 a;
  asm("vbroadcastss %[x], %[a]\n\t"
      "vfmadd231ps %[w0], %[a], %[sum0]\n\t"
      "vfmadd231ps %[w1], %[a], %[sum1]"
      : [sum0] "+x"(sum[0]), [sum1] "+x"(sum[1]), [a] "=&x"(a)
      : [w0] "x"(w[0]), [w1] "x"(w[1]), [x] "m"(x));
}

// What the first or second numbers of N vectors of pairs add to the sums of R rows. A few rows' numbers wait for all
// vectors; of more rows two vectors wait for all numbers.
template <int Half, int R, int N>
TENON_INLINE void add_half(__m256 (&sum)[R][N], const std::byte* pairs, const float* const (&x)[R]) {
  const auto vector = [&](int j) {
    const __m256i pair = pairs_at(pairs + 32 * j), upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm256_castsi256_ps(Half == 0 ? _mm256_slli_epi32(pair, 16) : _mm256_and_si256(pair, upper));
  };
  if constexpr (R <= 3) {
    __m256 a[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) a[r] = _mm256_set1_ps(x[r][Half]);
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      if constexpr (R == 3)
        add_three<Half>(sum[0][j], sum[1][j], sum[2][j], a, pairs + 32 * j);
      else
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r][j] = _mm256_fmadd_ps(a[r], vector(j), sum[r][j]);
    }
  } else {
    static_assert(N == 2);
    const __m256 w[2] = {vector(0), vector(1)};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) add_two(sum[r], x[r][Half], w);
  }
}

// R widened rows and N vectors of outputs, behind what `out` holds unless this is fresh. With every pair memory is
// asked for so many lines of what begins at `ask`.
template <int R, int N, int Lines>
void bf16_tile(const std::byte* pairs, std::int64_t count, const float (&x)[R][2 * kBlockPairs], float* out,
               std::int64_t stride, bool fresh, const std::byte* ask) {
  __m256 sum[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sum[r][j] = fresh ? _mm256_setzero_ps() : _mm256_loadu_ps(out + r * stride + 8 * j);
  for (std::int64_t p = 0; p < count; ++p, pairs += 256) {
#pragma GCC unroll 4
    for (int i = 0; i < Lines; ++i) _mm_prefetch(reinterpret_cast<const char*>(ask + 64 * i), _MM_HINT_T1);
    ask += 64 * Lines;
    const float* at[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) at[r] = x[r] + 2 * p;
    add_half<0>(sum, pairs, at), add_half<1>(sum, pairs, at);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) _mm256_storeu_ps(out + r * stride + 8 * j, sum[r][j]);
}

// A row alone goes through a panel's pairs once, two or three rows twice, more rows four times, for a quarter of the
// outputs each.
constexpr int passes(std::int64_t rows) { return rows == 1 ? 1 : rows <= 3 ? 2 : 4; }

// Rows [row, row + R) of x and `count` pairs of a panel, from pair p on. at: those pairs. Asks: memory is asked for
// what begins at `ask`, as much as is read.
template <int R, bool Asks>
void bf16_rows(const std::byte* at, std::int64_t count, const Activations& x, std::int64_t row, std::int64_t p,
               float* out, std::int64_t stride, const std::byte* ask) {
  constexpr int vectors = 8 / passes(R), lines = Asks ? 4 / passes(R) : 0;
  alignas(32) float wide[R][2 * kBlockPairs];
  for (int i = 0; i < R; ++i) widen(x.bf16 + (row + i) * x.bf16_stride() + 2 * p, 2 * count, wide[i]);
  for (int pass = 0; pass < passes(R); ++pass, ask += 64 * lines * count) {
    const std::int64_t lane = 8 * vectors * pass;
    bf16_tile<R, vectors, lines>(at + 4 * lane, count, wide, out + lane, stride, p == 0, ask);
  }
}

// The first tile asks ahead: a row alone for what it reads soon itself, more rows for what is behind. Later tiles find
// the panel in a cache.
void bf16_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                  std::int64_t stride) {
  const std::int64_t pairs = x.bf16_stride() / 2, block = block_pairs(rows);
  for_even_tiles<kPairRows>(rows, [&]<int R>(std::int64_t r) {
    std::int64_t p = 0;
    do {
      const std::int64_t count = pairs - p < block ? pairs - p : block;
      const std::byte *at = panel.at + 256 * p,
                      *ask = panel.after ? panel.after + 256 * p : at + (R == 1 ? kPairsReach : 256 * count);
      const auto go = r == 0 ? bf16_rows<R, true> : bf16_rows<R, false>;
      go(at, count, x, first + r, p, out + r * stride, stride, ask);
    } while ((p += block) < pairs);
  });
}

// What units of short exponents stand for. An exponent is looked up as the two bytes between which it is divided: seven
// bits, and one that is a mantissa's neighbour.
struct ShortUnits {
  const std::byte* units;
  __m256i upper, lower;

  TENON_INLINE explicit ShortUnits(const ShortPanel& panel) : units(panel.units) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel.exponents));
    upper = _mm256_broadcastsi128_si256(_mm_and_si128(_mm_srli_epi16(table, 1), _mm_set1_epi8(0x7f)));
    lower = _mm256_broadcastsi128_si256(_mm_slli_epi16(_mm_and_si128(table, _mm_set1_epi8(1)), 7));
  }
  // each(j, pairs) for the eight vectors of a unit. Asks memory ahead.
  template <class Each>
  TENON_INLINE void take(std::int64_t p, const Each& each) const {
    const __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80)), low = _mm256_set1_epi8(15);
    const std::byte* unit = units + p * kShortUnit;
#pragma GCC unroll 3
    for (int line = 0; line < 3; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(unit + kShortReach + 64 * line), _MM_HINT_T1);
#pragma GCC unroll 2
    for (int part = 0; part < 2; ++part) { // sixteen bytes of either are eight outputs, and eight 16 outputs on
      const __m256i both = pairs_at(unit + 128 + 32 * part);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const __m256i number = pairs_at(unit + 64 * half + 32 * part),
                      code = _mm256_and_si256(half == 0 ? both : _mm256_srli_epi16(both, 4), low),
                      high = _mm256_or_si256(_mm256_and_si256(number, sign), _mm256_shuffle_epi8(upper, code)),
                      rest = _mm256_or_si256(_mm256_andnot_si256(sign, number), _mm256_shuffle_epi8(lower, code));
        each(4 * half + part, _mm256_unpacklo_epi8(rest, high));
        each(4 * half + part + 2, _mm256_unpackhi_epi8(rest, high));
      }
    }
  }
};

void expand(const ShortUnits& units, std::int64_t first, std::int64_t count, std::byte* out) {
  for (std::int64_t p = first; p < first + count; ++p, out += 256)
    units.take(p, [&](int j, __m256i pairs) { _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32 * j), pairs); });
}

// One row multiplies pairs as they are made.
void short_row(const ShortUnits& units, const std::uint16_t* x, std::int64_t count, float* out) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  const auto first = [](__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); };
  const auto second = [&](__m256i pairs) { return _mm256_castsi256_ps(_mm256_and_si256(pairs, upper)); };
  __m256 sum[8] = {};
  for (std::int64_t p = 0; p < count; ++p) {
    std::int32_t pair;
    std::memcpy(&pair, x + 2 * p, sizeof pair);
    const __m256i numbers = _mm256_set1_epi32(pair);
    const __m256 a = first(numbers), b = second(numbers);
    units.take(p, [&](int j, __m256i w) {
      sum[j] = _mm256_fmadd_ps(a, first(w), sum[j]);
      sum[j] = _mm256_fmadd_ps(b, second(w), sum[j]);
    });
  }
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) _mm256_storeu_ps(out + 8 * j, sum[j]);
}

// More rows go over a block of pairs that were made before.
void short_rows(const ShortUnits& units, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                std::int64_t stride) {
  const std::int64_t pairs = x.bf16_stride() / 2, most = block_pairs(rows);
  alignas(32) std::byte block[256 * kBlockPairs];
  std::int64_t p = 0;
  do {
    const std::int64_t count = pairs - p < most ? pairs - p : most;
    expand(units, p, count, block);
    for_even_tiles<kPairRows>(rows, [&]<int R>(std::int64_t r) {
      const auto go = r == 0 ? bf16_rows<R, true> : bf16_rows<R, false>;
      go(block, count, x, first + r, p, out + r * stride, stride, units.units + (p + count) * kShortUnit);
    });
  } while ((p += most) < pairs);
}

void short_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                   std::int64_t stride) {
  const ShortPanel parts(panel.at, x.width);
  const ShortUnits units(parts);
  const std::uint16_t* from = x.bf16 + first * x.bf16_stride();
  if (rows == 1)
    short_row(units, from, x.bf16_stride() / 2, out);
  else
    short_rows(units, x, first, rows, out, stride);
  add_outliers(parts, from, x.bf16_stride(), rows, out, stride);
}

} // namespace
} // namespace tenon::cpu

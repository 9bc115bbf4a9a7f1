// Products with integers in AVX2: `vpmaddubsw` multiplies, and nothing saturates.
// Included by kernels_avx2.cpp alone, and compiled with its flags.
#pragma once

#include "kernels/cpu/vectors.hpp"

#include <immintrin.h>

#include <cstring>
#include <type_traits>

namespace tenon::cpu {
namespace {

__m256i quads_at(const std::byte* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

constexpr std::int64_t kGroupsReach = 2048; // bytes ahead; the fastest of what was tried from 256 to 8192

__m256 halves(const std::byte* at) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))); }

// Four numbers of a row, and what two vectors of outputs add to their sums for them, or put there first. In assembly: a
// compiler would spread all rows' quads over lanes at once, into registers that there are not, and write them to the
// stack and back.
struct Quad {
  std::int8_t x[4];

  // w: two numbers of 0 to 15 to a lane of 16 bits. Two products are at most 2 * 15 * 127.
  TENON_INLINE void put4(__m256i (&sum)[2], const __m256i (&w)[2]) const {
    asm("vpbroadcastd %[x], %[sum1]\n\t"
        "vpmaddubsw %[sum1], %[w0], %[sum0]\n\t"
        "vpmaddubsw %[sum1], %[w1], %[sum1]"
        : [sum0] "=&x"(sum[0]), [sum1] "=&x"(sum[1])
        : [w0] "x"(w[0]), [w1] "x"(w[1]), [x] "m"(*this));
  }
  TENON_INLINE void add4(__m256i (&sum)[2], const __m256i (&w)[2]) const {
    __m256i a, b;
    asm("vpbroadcastd %[x], %[b]\n\t"
        "vpmaddubsw %[b], %[w0], %[a]\n\t"
        "vpmaddubsw %[b], %[w1], %[b]\n\t"
        "vpaddw %[a], %[sum0], %[sum0]\n\t"
        "vpaddw %[b], %[sum1], %[sum1]"
        : [sum0] "+x"(sum[0]), [sum1] "+x"(sum[1]), [a] "=&x"(a), [b] "=&x"(b)
        : [w0] "x"(w[0]), [w1] "x"(w[1]), [x] "m"(*this));
  }
  // size = |w| as unsigned, against x with w's sign: two products are at most 2 * 128 * 127 = 32512, and their sum of
  // 16 bits never saturates.
  TENON_INLINE void put8(__m256i (&sum)[2], const __m256i (&w)[2], const __m256i (&size)[2]) const {
    asm("vpbroadcastd %[x], %[sum1]\n\t"
        "vpsignb %[w0], %[sum1], %[sum0]\n\t"
        "vpsignb %[w1], %[sum1], %[sum1]\n\t"
        "vpmaddubsw %[sum0], %[size0], %[sum0]\n\t"
        "vpmaddubsw %[sum1], %[size1], %[sum1]\n\t"
        "vpmaddwd %[ones], %[sum0], %[sum0]\n\t"
        "vpmaddwd %[ones], %[sum1], %[sum1]"
        : [sum0] "=&x"(sum[0]), [sum1] "=&x"(sum[1])
        : [w0] "x"(w[0]), [w1] "x"(w[1]), [size0] "x"(size[0]), [size1] "x"(size[1]), [ones] "x"(_mm256_set1_epi16(1)),
          [x] "m"(*this));
  }
  TENON_INLINE void add8(__m256i (&sum)[2], const __m256i (&w)[2], const __m256i (&size)[2]) const {
    __m256i a, b;
    asm("vpbroadcastd %[x], %[b]\n\t"
        "vpsignb %[w0], %[b], %[a]\n\t"
        "vpsignb %[w1], %[b], %[b]\n\t"
        "vpmaddubsw %[a], %[size0], %[a]\n\t"
        "vpmaddubsw %[b], %[size1], %[b]\n\t"
        "vpmaddwd %[ones], %[a], %[a]\n\t"
        "vpmaddwd %[ones], %[b], %[b]\n\t"
        "vpaddd %[a], %[sum0], %[sum0]\n\t"
        "vpaddd %[b], %[sum1], %[sum1]"
        : [sum0] "+x"(sum[0]), [sum1] "+x"(sum[1]), [a] "=&x"(a), [b] "=&x"(b)
        : [w0] "x"(w[0]), [w1] "x"(w[1]), [size0] "x"(size[0]), [size1] "x"(size[1]), [ones] "x"(_mm256_set1_epi16(1)),
          [x] "m"(*this));
  }
};

// Two numbers of 16 bits of a row, likewise; w: two numbers of 0 to 255, to a lane of 32 bits.
struct FinePair {
  std::int16_t x[2];

  TENON_INLINE void put(__m256i (&sum)[2], const __m256i (&w)[2]) const {
    asm("vpbroadcastd %[x], %[sum1]\n\t"
        "vpmaddwd %[sum1], %[w0], %[sum0]\n\t"
        "vpmaddwd %[sum1], %[w1], %[sum1]"
        : [sum0] "=&x"(sum[0]), [sum1] "=&x"(sum[1])
        : [w0] "x"(w[0]), [w1] "x"(w[1]), [x] "m"(*this));
  }
  TENON_INLINE void add(__m256i (&sum)[2], const __m256i (&w)[2]) const {
    __m256i a, b;
    asm("vpbroadcastd %[x], %[b]\n\t"
        "vpmaddwd %[b], %[w0], %[a]\n\t"
        "vpmaddwd %[b], %[w1], %[b]\n\t"
        "vpaddd %[a], %[sum0], %[sum0]\n\t"
        "vpaddd %[b], %[sum1], %[sum1]"
        : [sum0] "+x"(sum[0]), [sum1] "+x"(sum[1]), [a] "=&x"(a), [b] "=&x"(b)
        : [w0] "x"(w[0]), [w1] "x"(w[1]), [x] "m"(*this));
  }
};

// A group of a row in two parts, as numbers of 16 bits: first and third of every quad, then second and fourth.
struct FineGroup {
  alignas(32) FinePair pairs[2][8];

  void take(const std::int8_t* first, const std::int8_t* second) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first)),
                  b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second)), parts = _mm256_set1_epi16(kFine);
    const auto both = [&](__m256i x, __m256i y) { return _mm256_add_epi16(_mm256_mullo_epi16(x, parts), y); };
    const auto even = [](__m256i x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); };
    const auto odd = [](__m256i x) { return _mm256_srai_epi16(x, 8); };
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs[0]), both(even(a), even(b)));
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs[1]), both(odd(a), odd(b)));
  }
};

// Integer sums of one group for the 16 outputs whose quads begin at `at`, for R rows; of bytes as they stand there, 128
// too large.
template <int R>
TENON_INLINE void group_sums16(const std::byte* at, const FineGroup (&x)[R], __m256i (&sum)[R][2]) {
  const __m256i low = _mm256_set1_epi16(255);
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const auto weights = [&](const std::byte* quads) {
        return half == 0 ? _mm256_and_si256(quads_at(quads), low) : _mm256_srli_epi16(quads_at(quads), 8);
      };
      const __m256i w[2] = {weights(at + 256 * k), weights(at + 256 * k + 32)};
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        k + half == 0 ? x[r].pairs[half][k].put(sum[r], w) : x[r].pairs[half][k].add(sum[r], w);
    }
}

// Integer sums of one group for the 16 outputs whose quads begin at `at`, for R rows of 8 quads.
template <int R>
TENON_INLINE void group_sums8(const std::byte* at, const Quad (&x)[R][8], __m256i (&sum)[R][2]) {
  const __m256i offset = _mm256_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) {
    const __m256i w[2] = {_mm256_xor_si256(quads_at(at + 256 * k), offset),
                          _mm256_xor_si256(quads_at(at + 256 * k + 32), offset)};
    const __m256i size[2] = {_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) k == 0 ? x[r][k].put8(sum[r], w, size) : x[r][k].add8(sum[r], w, size);
  }
}

// All 16 products of a lane of 16 bits are at most 30480: they are added there, and widened once.
template <int R>
TENON_INLINE void group_sums4(const std::byte* at, const Quad (&x)[R][8], __m256i (&sum)[R][2]) {
  const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 8
  for (int k = 0; k < 4; ++k) {
    const __m256i both[2] = {quads_at(at + 256 * k), quads_at(at + 256 * k + 32)};
    const __m256i first[2] = {_mm256_and_si256(both[0], low), _mm256_and_si256(both[1], low)};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) k == 0 ? x[r][k].put4(sum[r], first) : x[r][k].add4(sum[r], first);
    const __m256i second[2] = {_mm256_and_si256(_mm256_srli_epi16(both[0], 4), low),
                               _mm256_and_si256(_mm256_srli_epi16(both[1], 4), low)};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) x[r][4 + k].add4(sum[r], second);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
    for (__m256i& one : sum[r]) one = _mm256_madd_epi16(one, _mm256_set1_epi16(1));
}

// The group of R rows that a tile is at: numbers, side by side, so that none needs an address of its own; what a step
// of theirs is, and the sum of what they are in steps.
template <int R, bool Fine>
struct GroupOfRows {
  std::conditional_t<Fine, FineGroup[R], Quad[R][8]> x;
  float step[R];
  std::int32_t total[R];

  TENON_INLINE void take(const Activations& from, std::int64_t row, std::int64_t group) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::int64_t first = Fine ? 2 * (row + r) : row + r, last = Fine ? first + 1 : first,
                         at = last * from.groups() + group;
      const std::int8_t* q = from.q + first * from.width + group * kGroup;
      if constexpr (Fine)
        x[r].take(q, q + from.width);
      else
        std::memcpy(x[r], q, kGroup);
      step[r] = from.scale[at];
      total[r] = Fine ? kFine * from.sum[at - from.groups()] + from.sum[at] : from.sum[at];
    }
  }
};

// R rows, or in fine R of two parts each, and a panel's outputs, 16 at a time. Asks: memory is asked for what is
// `ahead` of what is read, for a quarter of a group with each.
template <PackedFormat F, int R, bool Fine, bool Asks>
void integer_tile(const std::byte* unit, const Activations& x, std::int64_t row, float* out, std::int64_t stride,
                  std::ptrdiff_t ahead) {
  static_assert(!Fine || F == PackedFormat::int8g32); // two rows of int4 are nearly as fast
  using Unit = IntegerUnit<F>;
  constexpr int lines = Asks ? (Unit::bytes / 64 + 3) / 4 : 0,
                offset = Unit::wide && !Fine ? 0 : Unit::offset; // group_sums8 takes it off
  __m256 sum[R][8] = {};
  for (std::int64_t g = 0; g < x.groups(); ++g, unit += Unit::bytes) {
    GroupOfRows<R, Fine> rows;
    rows.take(x, row, g);
    const std::byte* ask = unit + ahead;
    for (int j = 0; j < 8; j += 2, ask += 64 * lines) {
#pragma GCC unroll 16
      for (int i = 0; i < lines; ++i) _mm_prefetch(reinterpret_cast<const char*>(ask + 64 * i), _MM_HINT_T1);
      const std::byte* at = unit + Unit::head + 32 * j;
      __m256i whole[R][2];
      if constexpr (Fine)
        group_sums16<R>(at, rows.x, whole);
      else if constexpr (F == PackedFormat::int8g32)
        group_sums8<R>(at, rows.x, whole);
      else
        group_sums4<R>(at, rows.x, whole);
#pragma GCC unroll 8
      for (int i = 0; i < 2; ++i) {
        const __m256 d = halves(unit + 16 * (j + i));
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          __m256& to = sum[r][j + i];
          if (offset) whole[r][i] = _mm256_sub_epi32(whole[r][i], _mm256_set1_epi32(offset * rows.total[r]));
          const __m256 numbers = _mm256_cvtepi32_ps(whole[r][i]), step = _mm256_set1_ps(rows.step[r]);
          if constexpr (Unit::minimum) {
            const __m256 total = _mm256_set1_ps(static_cast<float>(rows.total[r])),
                         shift = _mm256_mul_ps(total, halves(unit + 128 + 16 * (j + i)));
            to = _mm256_fmadd_ps(_mm256_fmadd_ps(numbers, d, shift), step, to);
          } else {
            to = _mm256_fmadd_ps(_mm256_mul_ps(numbers, step), d, to);
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) _mm256_storeu_ps(out + r * stride + 8 * j, sum[r][j]);
}

template <PackedFormat F, bool Fine = false>
void integer_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                     std::int64_t stride) {
  constexpr int most = F == PackedFormat::int8g32 && !Fine ? 4 : 6; // rows of a tile, whose sums stay in registers
  const std::ptrdiff_t ahead = panel.after ? panel.after - panel.at : kGroupsReach;
  for_even_tiles<most>(rows, [&]<int R>(std::int64_t r) { // the first finds it in memory, others in a cache
    const auto tile = r == 0 ? integer_tile<F, R, Fine, true> : integer_tile<F, R, Fine, false>;
    tile(panel.at, x, first + r, out + r * stride, stride, ahead);
  });
}

} // namespace
} // namespace tenon::cpu

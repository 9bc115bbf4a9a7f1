// Products with integers in AVX2: `vpmaddubsw` multiplies, and nothing saturates.
// Included by kernels_avx2.cpp alone, and compiled with its flags.
#pragma once

#include "kernels/cpu/vectors.hpp"

#include <immintrin.h>

#include <cstring>

namespace tenon::cpu {
namespace {

__m256i quads_at(const std::byte* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

constexpr std::int64_t kGroupsReach = 2048; // bytes ahead; the fastest of what was tried from 256 to 8192

__m256 halves(const std::byte* at) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))); }

template <PackedFormat F>
struct Integers {
  static constexpr bool minimum = F == PackedFormat::int4g32m;
  static constexpr std::int64_t head = minimum ? 256 : 128, bytes = head + (F == PackedFormat::int8g32 ? 2048 : 1024);
  static constexpr int offset = F == PackedFormat::int4g32 ? 8 : 0;
};

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

// R rows and a panel's outputs, 16 at a time. Asks: memory is asked for what is `ahead` of what is read, for a quarter
// of a group with each.
template <PackedFormat F, int R, bool Asks>
void integer_tile(const std::byte* unit, const Activations& x, std::int64_t row, float* out, std::int64_t stride,
                  std::ptrdiff_t ahead) {
  using I = Integers<F>;
  constexpr int lines = Asks ? (I::bytes / 64 + 3) / 4 : 0;
  __m256 sum[R][8] = {};
  for (std::int64_t g = 0; g < x.groups(); ++g, unit += I::bytes) {
    alignas(32) Quad quads[R][8]; // a group of every row, side by side: no quad needs an address of its own
    float step[R], total[R];
    std::int32_t base[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::int64_t at = (row + r) * x.groups() + g;
      std::memcpy(quads[r], x.q + (row + r) * x.width + g * kGroup, kGroup);
      step[r] = x.scale[at], total[r] = static_cast<float>(x.sum[at]), base[r] = -I::offset * x.sum[at];
    }
    const std::byte* ask = unit + ahead;
    for (int j = 0; j < 8; j += 2, ask += 64 * lines) {
#pragma GCC unroll 16
      for (int i = 0; i < lines; ++i) _mm_prefetch(reinterpret_cast<const char*>(ask + 64 * i), _MM_HINT_T1);
      __m256i whole[R][2];
      if constexpr (F == PackedFormat::int8g32)
        group_sums8<R>(unit + I::head + 32 * j, quads, whole);
      else
        group_sums4<R>(unit + I::head + 32 * j, quads, whole);
#pragma GCC unroll 8
      for (int i = 0; i < 2; ++i) {
        const __m256 d = halves(unit + 16 * (j + i));
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          __m256& to = sum[r][j + i];
          if (I::offset) whole[r][i] = _mm256_add_epi32(whole[r][i], _mm256_set1_epi32(base[r]));
          const __m256 numbers = _mm256_cvtepi32_ps(whole[r][i]), steps = _mm256_set1_ps(step[r]);
          if constexpr (I::minimum) {
            const __m256 shift = _mm256_mul_ps(_mm256_set1_ps(total[r]), halves(unit + 128 + 16 * (j + i)));
            to = _mm256_fmadd_ps(_mm256_fmadd_ps(numbers, d, shift), steps, to);
          } else {
            to = _mm256_fmadd_ps(_mm256_mul_ps(numbers, steps), d, to);
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

template <PackedFormat F>
void integer_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                     std::int64_t stride) {
  constexpr int most = F == PackedFormat::int8g32 ? 4 : 6; // rows of a tile, whose sums stay in registers
  const std::ptrdiff_t ahead = panel.after ? panel.after - panel.at : kGroupsReach;
  for_even_tiles<most>(rows, [&]<int R>(std::int64_t r) {
    const auto tile = r == 0 ? integer_tile<F, R, true> : integer_tile<F, R, false>; // later ones find it in a cache
    tile(panel.at, x, first + r, out + r * stride, stride, ahead);
  });
}

} // namespace
} // namespace tenon::cpu

// Products with pairs of bfloat16 in AVX-512, plain or with short exponents.
// Included by kernels_avx512.cpp alone, and compiled with its flags.
#pragma once

#include "kernels/cpu/short_exponents.hpp"
#include "kernels/cpu/tiles_avx512.hpp"

namespace tenon::cpu {
namespace {

constexpr std::int64_t kPairBytes = 256; // of a panel, for two inputs

// With lines asked into the first cache products that stream are 1.03 to 1.1 times as fast on the newer, attention 1.2.
Reach pairs_reach() { return newer_amd() ? Reach{6144, true} : Reach{4096}; }

// Where a tile gets the weights of two inputs from: bfloat16 as it is,
struct Pairs {
  static constexpr int lines = 4; // of a step
  const std::byte* at;

  TENON_INLINE const std::byte* place(std::int64_t p) const { return at + p * kPairBytes; }
  TENON_INLINE void load(std::int64_t p, __m512bh (&w)[kVectors]) const {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) w[j] = (__m512bh)_mm512_loadu_si512(place(p) + 64 * j);
  }
};

// or with short exponents: these are looked up as the two bytes between which they are divided.
struct ShortPairs {
  static constexpr int lines = 3;
  const std::byte* at;
  __m512i upper, lower; // of exponents: seven bits, and one that is a mantissa's neighbour

  explicit ShortPairs(const ShortPanel& panel) : at(panel.units) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel.exponents));
    upper = _mm512_broadcast_i32x4(_mm_and_si128(_mm_srli_epi16(table, 1), _mm_set1_epi8(0x7f)));
    lower = _mm512_broadcast_i32x4(_mm_slli_epi16(_mm_and_si128(table, _mm_set1_epi8(1)), 7));
  }
  TENON_INLINE const std::byte* place(std::int64_t p) const { return at + p * kShortUnit; }
  TENON_INLINE void load(std::int64_t p, __m512bh (&w)[kVectors]) const {
    constexpr int pick = 0xca; // a bit of the second where the first is one, else of the third
    const __m512i low = _mm512_set1_epi8(15), sign = _mm512_set1_epi8(static_cast<char>(0x80)),
                  both = _mm512_loadu_si512(place(p) + 128);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m512i number = _mm512_loadu_si512(place(p) + 64 * i),
                    code = _mm512_and_si512(i == 0 ? both : _mm512_srli_epi16(both, 4), low),
                    high = _mm512_ternarylogic_epi32(sign, number, _mm512_shuffle_epi8(upper, code), pick),
                    rest = _mm512_ternarylogic_epi32(sign, _mm512_shuffle_epi8(lower, code), number, pick);
      w[2 * i] = (__m512bh)_mm512_unpacklo_epi8(rest, high);
      w[2 * i + 1] = (__m512bh)_mm512_unpackhi_epi8(rest, high);
    }
  }
};

template <int R, bool asks = true, class Source>
void bf16_tile(const Source source, std::int64_t count, const std::uint16_t* x, std::int64_t x_stride, float* out,
               std::int64_t stride, bool fresh, Ahead ahead) {
  __m512 sum[R][kVectors];
  begin<R>(sum, out, stride, fresh);
  for (std::int64_t p = 0; p < count; ++p) {
    __m512bh w[kVectors];
    source.load(p, w);
    if constexpr (asks) ahead.read(source.place(p)), ahead.fetch();
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto a = (__m512bh)_mm512_set1_epi32(quad(x + r * x_stride + 2 * p));
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[r][j] = _mm512_dpbf16_ps(sum[r][j], a, w[j]);
    }
  }
  finish<R>(sum, out, stride);
}

constexpr int kMostRows = 6; // of a tile of bfloat16

// Panels this long the newer of AMD's processors read by themselves as fast as memory gives; asking only holds them up.
bool reads_unasked(Panel panel, std::int64_t pairs) {
  constexpr std::int64_t bytes = std::int64_t{128} << 10;
  return newer_amd() && !panel.then && pairs * kPairBytes >= bytes;
}

// asks: not where a processor reads ahead by itself (reads_unasked).
template <bool asks = true, class Source>
void few_rows(const Source source, const std::byte* then, const Activations& x, std::int64_t first, std::int64_t rows,
              float* out, std::int64_t stride) {
  const std::int64_t x_stride = x.bf16_stride(), pairs = x_stride / 2;
  Ahead ahead(pairs_reach(), source.at, pairs, rows == 1 || asks_for_few() ? Source::lines : 0, 0, 1, 2);
  ahead.jump(source.place(pairs), then);
  for_tiles<kMostRows>(rows, [&]<int R>(std::int64_t r) {
    bf16_tile<R, asks>(source, pairs, x.bf16 + (first + r) * x_stride, x_stride, out + r * stride, stride, true, ahead);
  });
}

void bf16_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                  std::int64_t stride) {
  constexpr int many = 4;                   // tiles that ask for the panel behind
  constexpr std::int64_t block_pairs = 512; // of weights that stay in the second cache: 128 KiB
  const std::int64_t x_stride = x.bf16_stride(), pairs = x_stride / 2, tiles = (rows + kMostRows - 1) / kMostRows;
  if (rows <= kMostRows || pairs == 0) {
    const auto go = reads_unasked(panel, pairs) ? few_rows<false, Pairs> : few_rows<true, Pairs>;
    return go(Pairs{panel.at}, panel.then, x, first, rows, out, stride);
  }
  for (std::int64_t p = 0; p < pairs; p += block_pairs) {
    const std::int64_t count = pairs - p < block_pairs ? pairs - p : block_pairs;
    const Pairs source{panel.at + p * kPairBytes};
    for_tiles<kMostRows>(rows, [&]<int R>(std::int64_t r) {
      bf16_tile<R>(source, count, x.bf16 + (first + r) * x_stride + 2 * p, x_stride, out + r * stride, stride, p == 0,
                   Ahead(pairs_reach(), source.at, count, tiles >= many || asks_for_few() ? Pairs::lines : 0,
                         r / kMostRows, tiles, many));
    });
  }
}

// More rows than a tile's: pairs are made once, a block at a time that stays in the first cache, and meanwhile the
// block behind is asked for.
void short_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                   std::int64_t stride) {
  constexpr std::int64_t block_pairs = 96;
  const std::int64_t x_stride = x.bf16_stride(), pairs = x_stride / 2;
  const ShortPanel parts(panel.at, x.width);
  const ShortPairs source(parts);
  if (rows <= kMostRows || pairs == 0) {
    few_rows(source, panel.then, x, first, rows, out, stride);
  } else {
    const std::int64_t tiles = (rows + kMostRows - 1) / kMostRows;
    alignas(64) std::byte block[block_pairs * kPairBytes];
    for (std::int64_t p = 0; p < pairs; p += block_pairs) {
      const std::int64_t count = pairs - p < block_pairs ? pairs - p : block_pairs;
      for (std::int64_t i = 0; i < count; ++i) {
        __m512bh w[kVectors];
        source.load(p + i, w);
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) _mm512_store_si512(block + i * kPairBytes + 64 * j, (__m512i)w[j]);
      }
      for_tiles<kMostRows>(rows, [&]<int R>(std::int64_t r) {
        bf16_tile<R>(Pairs{block}, count, x.bf16 + (first + r) * x_stride + 2 * p, x_stride, out + r * stride, stride,
                     p == 0, Ahead(pairs_reach(), source.place(p), count, ShortPairs::lines, r / kMostRows, tiles, 1));
      });
    }
  }
  add_outliers(parts, x.bf16 + first * x_stride, x_stride, rows, out, stride);
}

} // namespace
} // namespace tenon::cpu

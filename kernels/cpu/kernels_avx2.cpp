// Compiled with AVX2, FMA and F16C; reached only where the processor has them.
#include "kernels/cpu/ahead.hpp"
#include "kernels/cpu/attention_vectors.hpp"
#include "kernels/cpu/row_loops.hpp"
#include "kernels/cpu/short_exponents.hpp"

#include <immintrin.h>

#include <cstring>

namespace tenon::cpu {
namespace {

struct V256 {
  static constexpr std::int64_t width = 8;
  static constexpr int tile = 2;
  __m256 v;
  static __m256i part(std::int64_t n) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lanes);
  }
  static V256 load(const float* x) { return {_mm256_loadu_ps(x)}; }
  static V256 load_part(const float* x, std::int64_t n) { return {_mm256_maskload_ps(x, part(n))}; }
  void store(float* x) const { _mm256_storeu_ps(x, v); }
  void store_part(float* x, std::int64_t n) const { _mm256_maskstore_ps(x, part(n), v); }
  static V256 set(float x) { return {_mm256_set1_ps(x)}; }
  static V256 zero() { return {_mm256_setzero_ps()}; }
  static V256 fma(V256 a, V256 b, V256 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static V256 max(V256 a, V256 b) { return {_mm256_max_ps(a.v, b.v)}; }
  static V256 min(V256 a, V256 b) { return {_mm256_min_ps(a.v, b.v)}; }
  static V256 round(V256 a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
  static V256 power(V256 n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))};
  }
  float largest() const {
    alignas(32) float lanes[8];
    _mm256_store_ps(lanes, v);
    float most = lanes[0];
    for (const float one : lanes) most = one > most ? one : most;
    return most;
  }
  float sum() const {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
  std::uint32_t above(V256 other) const {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(v, other.v, _CMP_GT_OQ)));
  }
  friend V256 operator+(V256 a, V256 b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend V256 operator-(V256 a, V256 b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend V256 operator*(V256 a, V256 b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend V256 operator/(V256 a, V256 b) { return {_mm256_div_ps(a.v, b.v)}; }

  // Either half of a vector takes row 4 half + i; then the halves are transposed on their own.
  static void transpose(const float* in, std::int64_t stride, float* out, std::int64_t out_stride) {
    for (std::int64_t c = 0; c < width; c += 4) {
      __m256 row[4];
      for (std::int64_t i = 0; i < 4; ++i) {
        const float* from = in + i * stride + c;
        row[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + 4 * stride), 1);
      }
      const __m256 a = _mm256_unpacklo_ps(row[0], row[1]), b = _mm256_unpackhi_ps(row[0], row[1]),
                   d = _mm256_unpacklo_ps(row[2], row[3]), e = _mm256_unpackhi_ps(row[2], row[3]);
      _mm256_storeu_ps(out + c * out_stride, _mm256_shuffle_ps(a, d, 0x44));
      _mm256_storeu_ps(out + (c + 1) * out_stride, _mm256_shuffle_ps(a, d, 0xee));
      _mm256_storeu_ps(out + (c + 2) * out_stride, _mm256_shuffle_ps(b, e, 0x44));
      _mm256_storeu_ps(out + (c + 3) * out_stride, _mm256_shuffle_ps(b, e, 0xee));
    }
  }
};

__m256i load(const std::byte* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }

// The fastest of what was tried from 256 to 8192.
constexpr Reach kPairsReach = {1536}, kGroupsReach = {2048}, kValuesReach = {4096};

constexpr std::int64_t kBlockPairs = 128; // of rows that are widened at once, into the first cache

void widen(const std::uint16_t* x, std::int64_t count, float* out) {
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i lanes = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i)));
    _mm256_storeu_ps(out + i, _mm256_castsi256_ps(_mm256_slli_epi32(lanes, 16)));
  }
  for (; i < count; ++i) out[i] = nn::bf16_to_f32(x[i]);
}

// R widened rows and N vectors of outputs, behind what `out` holds unless this is fresh.
template <int R, int N>
void bf16_tile(const std::byte* pairs, std::int64_t count, const float (&x)[R][2 * kBlockPairs], float* out,
               std::int64_t stride, bool fresh, Ahead ahead) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  __m256 sum[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sum[r][j] = fresh ? _mm256_setzero_ps() : _mm256_loadu_ps(out + r * stride + 8 * j);
  for (std::int64_t p = 0; p < count; ++p) {
    ahead.read(pairs + 256 * p), ahead.fetch();
    __m256 first[N], second[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      const __m256i w = load(pairs + 256 * p + 32 * j);
      first[j] = _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
      second[j] = _mm256_castsi256_ps(_mm256_and_si256(w, upper));
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m256 a = _mm256_broadcast_ss(x[r] + 2 * p), b = _mm256_broadcast_ss(x[r] + 2 * p + 1);
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sum[r][j] = _mm256_fmadd_ps(b, second[j], _mm256_fmadd_ps(a, first[j], sum[r][j]));
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) _mm256_storeu_ps(out + r * stride + 8 * j, sum[r][j]);
}

// Rows [row, row + R) of x and `count` pairs of a panel, from pair p on. at: those pairs. A row alone goes through them
// once, every four rows four times, for a quarter of the outputs each.
template <int R, class Ask>
void bf16_rows(const std::byte* at, std::int64_t count, const Activations& x, std::int64_t row, std::int64_t p,
               float* out, std::int64_t stride, const Ask& ask) {
  constexpr int vectors = R == 1 ? 8 : R == 2 ? 4 : 2;
  alignas(32) float wide[R][2 * kBlockPairs];
  for (int i = 0; i < R; ++i) widen(x.bf16 + (row + i) * x.bf16_stride() + 2 * p, 2 * count, wide[i]);
  for (std::int64_t lane = 0; lane < kPanel; lane += 8 * vectors)
    bf16_tile<R, vectors>(at + 4 * lane, count, wide, out + lane, stride, p == 0, ask(lane));
}

void bf16_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                  std::int64_t stride) {
  const std::int64_t pairs = x.bf16_stride() / 2;
  for_tiles<4>(rows, [&]<int R>(std::int64_t r) {
    const std::int64_t tiles = rows == 1 ? 1 : (rows + 3) / 4 * 4;
    std::int64_t p = 0;
    do {
      const std::int64_t count = pairs - p < kBlockPairs ? pairs - p : kBlockPairs;
      const std::byte* at = panel.at + 256 * p;
      bf16_rows<R>(at, count, x, first + r, p, out + r * stride, stride,
                   [&](std::int64_t lane) { return Ahead(kPairsReach, at, count, 4, r + lane / 16, tiles, 2); });
    } while ((p += kBlockPairs) < pairs);
  });
}

// Units of short exponents as the pairs they stand for. An exponent is looked up as the two bytes between which it is
// divided: seven bits, and one that is a mantissa's neighbour.
void expand(const ShortPanel& panel, std::int64_t first, std::int64_t count, std::byte* out) {
  const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel.exponents));
  const __m256i upper = _mm256_broadcastsi128_si256(_mm_and_si128(_mm_srli_epi16(table, 1), _mm_set1_epi8(0x7f))),
                lower = _mm256_broadcastsi128_si256(_mm_slli_epi16(_mm_and_si128(table, _mm_set1_epi8(1)), 7)),
                sign = _mm256_set1_epi8(static_cast<char>(0x80)), low = _mm256_set1_epi8(15);
  for (std::int64_t p = 0; p < count; ++p, out += 256) {
    const std::byte* unit = panel.units + (first + p) * kShortUnit;
    for (int line = 0; line < 3; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(unit + kPairsReach.bytes + 64 * line), _MM_HINT_T1);
#pragma GCC unroll 2
    for (int part = 0; part < 2; ++part) { // sixteen bytes of either are eight outputs, and eight 16 outputs on
      const __m256i both = load(unit + 128 + 32 * part);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const __m256i number = load(unit + 64 * half + 32 * part),
                      code = _mm256_and_si256(half == 0 ? both : _mm256_srli_epi16(both, 4), low),
                      high = _mm256_or_si256(_mm256_and_si256(number, sign), _mm256_shuffle_epi8(upper, code)),
                      rest = _mm256_or_si256(_mm256_andnot_si256(sign, number), _mm256_shuffle_epi8(lower, code));
        auto* to = reinterpret_cast<__m256i*>(out + 128 * half + 32 * part);
        _mm256_store_si256(to, _mm256_unpacklo_epi8(rest, high));
        _mm256_store_si256(to + 2, _mm256_unpackhi_epi8(rest, high));
      }
    }
  }
}

void short_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                   std::int64_t stride) {
  constexpr std::int64_t block_pairs = 64; // in the first cache
  const std::int64_t x_stride = x.bf16_stride(), pairs = x_stride / 2;
  const ShortPanel parts(panel.at, x.width);
  alignas(32) std::byte block[256 * block_pairs];
  std::int64_t p = 0;
  do {
    const std::int64_t count = pairs - p < block_pairs ? pairs - p : block_pairs;
    expand(parts, p, count, block);
    for_tiles<4>(rows, [&]<int R>(std::int64_t r) {
      bf16_rows<R>(block, count, x, first + r, p, out + r * stride, stride,
                   [&](std::int64_t) { return Ahead(kPairsReach, block, 0, 0, 0, 1, 2); });
    });
  } while ((p += block_pairs) < pairs);
  add_outliers(parts, x.bf16 + first * x_stride, x_stride, rows, out, stride);
}

__m256 halves(const std::byte* at) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))); }

template <PackedFormat F>
struct Integers {
  static constexpr bool minimum = F == PackedFormat::int4g32m;
  static constexpr std::int64_t head = minimum ? 256 : 128, bytes = head + (F == PackedFormat::int8g32 ? 2048 : 1024);
  static constexpr int offset = F == PackedFormat::int4g32 ? 8 : 0;
};

// Four numbers of a row, and what two vectors of outputs add to their sums for them. In assembly: a compiler would
// spread all rows' quads over lanes at once, into registers that there are not, and write them to the stack and back.
struct Quad {
  std::int8_t x[4];

  // w: two numbers of 0 to 15 to a lane of 16 bits. Two products are at most 2 * 15 * 127.
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
TENON_INLINE void group_sums8(const std::byte* at, const Quad* const (&x)[R], __m256i (&sum)[R][2]) {
  const __m256i offset = _mm256_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) {
    const __m256i w[2] = {_mm256_xor_si256(load(at + 256 * k), offset),
                          _mm256_xor_si256(load(at + 256 * k + 32), offset)};
    const __m256i size[2] = {_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) x[r][k].add8(sum[r], w, size);
  }
}

// All 16 products of a lane of 16 bits are at most 30480: they are added there, and widened once.
template <int R>
TENON_INLINE void group_sums4(const std::byte* at, const Quad* const (&x)[R], __m256i (&sum)[R][2]) {
  const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 8
  for (int k = 0; k < 4; ++k) {
    const __m256i both[2] = {load(at + 256 * k), load(at + 256 * k + 32)};
    const __m256i first[2] = {_mm256_and_si256(both[0], low), _mm256_and_si256(both[1], low)};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) x[r][k].add4(sum[r], first);
    const __m256i second[2] = {_mm256_and_si256(_mm256_srli_epi16(both[0], 4), low),
                               _mm256_and_si256(_mm256_srli_epi16(both[1], 4), low)};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) x[r][4 + k].add4(sum[r], second);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
    for (__m256i& one : sum[r]) one = _mm256_madd_epi16(one, _mm256_set1_epi16(1));
}

// R rows and a panel's outputs, 16 at a time.
template <PackedFormat F, int R>
void integer_tile(const std::byte* unit, const Activations& x, std::int64_t row, float* out, std::int64_t stride,
                  Ahead ahead) {
  using I = Integers<F>;
  __m256 sum[R][8] = {};
  for (std::int64_t g = 0; g < x.groups(); ++g, unit += I::bytes) {
    const Quad* quads[R];
    float step[R], total[R];
    std::int32_t base[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::int64_t at = (row + r) * x.groups() + g;
      quads[r] = reinterpret_cast<const Quad*>(x.q + (row + r) * x.width + g * kGroup);
      step[r] = x.scale[at], total[r] = static_cast<float>(x.sum[at]), base[r] = -I::offset * x.sum[at];
    }
    ahead.read(unit);
    for (int j = 0; j < 8; j += 2) {
      ahead.fetch();
      __m256i whole[R][2] = {};
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
  constexpr int lines = (Integers<F>::bytes / 64 + 3) / 4; // of a quarter of a group
  constexpr int never =
      1 << 30; // many tiles: arithmetic binds, and asking for the panel behind costs more than it gives
  for_tiles<4>(rows, [&]<int R>(std::int64_t r) {
    integer_tile<F, R>(panel.at, x, first + r, out + r * stride, stride,
                       Ahead(kGroupsReach, panel.at, x.groups() * 4, lines, r / 4, (rows + 3) / 4, never));
  });
}

void round(const float* x, std::int64_t count, std::uint16_t* out) {
  const __m256i one = _mm256_set1_epi32(1), half = _mm256_set1_epi32(0x7fff), quiet = _mm256_set1_epi32(0x40);
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 value = _mm256_loadu_ps(x + i);
    const __m256i bits = _mm256_castps_si256(value), upper = _mm256_srli_epi32(bits, 16),
                  even = _mm256_add_epi32(half, _mm256_and_si256(upper, one)),
                  nearest = _mm256_srli_epi32(_mm256_add_epi32(bits, even), 16),
                  nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q)),
                  rounded = _mm256_blendv_epi8(nearest, _mm256_or_si256(upper, quiet), nan);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_castsi256_si128(packed));
  }
  round_each(x + i, count - i, out + i);
}

void quantise(const float* x, std::int64_t count, std::int8_t* q, float* scale, std::int32_t* sum) {
  const __m256 sign = _mm256_set1_ps(-0.0f), infinite = _mm256_set1_ps(std::numeric_limits<float>::infinity());
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (std::int64_t g = 0; g < count / kGroup; ++g, x += kGroup, q += kGroup) {
    V256 most = V256::zero();
    bool finite = true;
    __m256i n[4];
    for (int i = 0; i < 4; ++i) {
      const __m256 a = _mm256_andnot_ps(sign, _mm256_loadu_ps(x + 8 * i));
      finite = finite && _mm256_movemask_ps(_mm256_cmp_ps(a, infinite, _CMP_NLT_UQ)) == 0;
      most = V256::max(most, {a});
    }
    const float largest = most.largest();
    const __m256 inverse = _mm256_set1_ps(largest > kSmallest ? 127.0f / largest : 0.0f);
    for (int i = 0; i < 4; ++i) n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3])),
                  two = _mm256_add_epi32(_mm256_add_epi32(n[0], n[1]), _mm256_add_epi32(n[2], n[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_permutevar8x32_epi32(bytes, in_order));
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1)),
                  last = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    sum[g] = finite ? _mm_cvtsi128_si32(_mm_add_epi32(last, _mm_shuffle_epi32(last, 0xb1))) : 0;
    scale[g] = finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
  }
}

void soften_scores(float* scores, std::int64_t visible, std::int64_t padded, float& largest, float& sum,
                   const Behind& behind) {
  Ahead ahead(kValuesReach, behind, visible / (4 * V256::width));
  soften<V256>(scores, visible, padded, largest, sum, [&] { ahead.fetch(); });
}

} // namespace

extern const Kernels avx2_kernels;
const Kernels avx2_kernels = {
    Tier::avx2,
    false,
    {bf16_product, integer_product<PackedFormat::int8g32>, integer_product<PackedFormat::int4g32>,
     integer_product<PackedFormat::int4g32m>, short_product},
    round,
    quantise,
    silu_multiply<V256>,
    silu_gradient<V256>,
    gelu<V256>,
    add_scaled<V256>,
    dot<V256>,
    attend<V256>,
    attend_gradient<V256>,
    soften_scores,
    largest<V256>,
    above<V256>,
    best<V256>,
    row_kernels};

} // namespace tenon::cpu

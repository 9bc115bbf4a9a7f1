// Compiled with AVX-512 F, BW, VL, DQ, BF16 and VNNI; reached only where the processor has them.
#include "kernels/cpu/ahead.hpp"
#include "kernels/cpu/attention_vectors.hpp"
#include "kernels/cpu/row_loops.hpp"
#include "kernels/cpu/short_exponents.hpp"

#include <immintrin.h>

namespace tenon::cpu {
namespace {

struct V512 {
  static constexpr std::int64_t width = 16;
  static constexpr int tile = 4;
  __m512 v;
  static __mmask16 part(std::int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static V512 load(const float* x) { return {_mm512_loadu_ps(x)}; }
  static V512 load_part(const float* x, std::int64_t n) { return {_mm512_maskz_loadu_ps(part(n), x)}; }
  void store(float* x) const { _mm512_storeu_ps(x, v); }
  void store_part(float* x, std::int64_t n) const { _mm512_mask_storeu_ps(x, part(n), v); }
  static V512 set(float x) { return {_mm512_set1_ps(x)}; }
  static V512 zero() { return {_mm512_setzero_ps()}; }
  static V512 fma(V512 a, V512 b, V512 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static V512 max(V512 a, V512 b) { return {_mm512_max_ps(a.v, b.v)}; }
  static V512 min(V512 a, V512 b) { return {_mm512_min_ps(a.v, b.v)}; }
  static V512 round(V512 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
  static V512 power(V512 n) { return {_mm512_scalef_ps(_mm512_set1_ps(1.0f), n.v)}; }
  float largest() const { return _mm512_reduce_max_ps(v); }
  float sum() const { return _mm512_reduce_add_ps(v); }
  std::uint32_t above(V512 other) const { return _mm512_cmp_ps_mask(v, other.v, _CMP_GT_OQ); }
  friend V512 operator+(V512 a, V512 b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend V512 operator-(V512 a, V512 b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend V512 operator*(V512 a, V512 b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend V512 operator/(V512 a, V512 b) { return {_mm512_div_ps(a.v, b.v)}; }

  // Quarter q of a vector takes row 4q + i; then every quarter is transposed on its own.
  static void transpose(const float* in, std::int64_t stride, float* out, std::int64_t out_stride) {
    for (std::int64_t c = 0; c < width; c += 4) {
      __m512 row[4];
      for (std::int64_t i = 0; i < 4; ++i) {
        const float* from = in + i * stride + c;
        row[i] = _mm512_castps128_ps512(_mm_loadu_ps(from));
        row[i] = _mm512_mask_broadcast_f32x4(row[i], 0x00f0, _mm_loadu_ps(from + 4 * stride));
        row[i] = _mm512_mask_broadcast_f32x4(row[i], 0x0f00, _mm_loadu_ps(from + 8 * stride));
        row[i] = _mm512_mask_broadcast_f32x4(row[i], 0xf000, _mm_loadu_ps(from + 12 * stride));
      }
      const __m512 a = _mm512_unpacklo_ps(row[0], row[1]), b = _mm512_unpackhi_ps(row[0], row[1]),
                   d = _mm512_unpacklo_ps(row[2], row[3]), e = _mm512_unpackhi_ps(row[2], row[3]);
      _mm512_storeu_ps(out + c * out_stride, _mm512_shuffle_ps(a, d, 0x44));
      _mm512_storeu_ps(out + (c + 1) * out_stride, _mm512_shuffle_ps(a, d, 0xee));
      _mm512_storeu_ps(out + (c + 2) * out_stride, _mm512_shuffle_ps(b, e, 0x44));
      _mm512_storeu_ps(out + (c + 3) * out_stride, _mm512_shuffle_ps(b, e, 0xee));
    }
  }
};

constexpr int kVectors = 4;              // of a panel
constexpr std::int64_t kPairBytes = 256; // of a panel, for two inputs

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
// With lines asked into the first cache products that stream are 1.03 to 1.1 times as fast on the newer, attention 1.2.
Reach pairs_reach() { return newer_amd() ? Reach{6144, true} : Reach{4096}; }
// How far values are asked for while scores become weights (decision 0015, item 18).
Reach values_reach() { return newer_amd() ? Reach{12288, true} : Reach{4096}; }

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

// More rows than one, and few tiles: asking ahead makes Intel's processors 1.3 to 1.7 times as fast and AMD's of family
// 26 1.1 to 1.6 times, but those of family 25, whose own prefetchers suffice, slower.
bool asks_for_few() { return !older_amd(); }

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

__m512 halves(const std::byte* at) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))); }

constexpr int kQuads = 8; // of a group
constexpr int kAsks = 8;  // for memory ahead, a group
constexpr int kTile = 4;  // rows of a tile at most

template <PackedFormat F>
struct Integers {
  static constexpr bool minimum = F == PackedFormat::int4g32m;
  static constexpr std::int64_t head = minimum ? 256 : 128, bytes = head + (F == PackedFormat::int8g32 ? 2048 : 1024);
  static constexpr int parts = F == PackedFormat::int8g32 ? 1 : 2; // of a byte
  static constexpr int offset = F == PackedFormat::int8g32 ? 128 : minimum ? 0 : 8;
};

template <PackedFormat F>
Reach reach() {
  if (Integers<F>::parts == 1) return newer_amd() ? Reach{8192, true} : Reach{4096};
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
TENON_INLINE void load_quads(const std::byte* at, __m512i (&w)[Integers<F>::parts][J]) {
  const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 8
  for (int j = 0; j < J; ++j) {
    w[0][j] = _mm512_loadu_si512(at + 64 * j);
    if constexpr (Integers<F>::parts == 2) {
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
  using I = Integers<F>;
  constexpr int steps = kQuads / I::parts;
  __m512 sum[R][kVectors];
  begin<R>(sum, out, stride, group == 0);
  for (std::int64_t g = group; g < group + groups; ++g, unit += I::bytes) {
    ahead.read(unit);
    RowGroup<R> rows(x, row, g, I::offset);
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
        __m512i w[I::parts][J];
        load_quads<F, J>(unit + I::head + 256 * k + 64 * first, w);
        if (k % (steps * kVectors / (J * kAsks)) == 0) ahead.fetch();
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
          for (int i = 0; i < I::parts; ++i) {
            const __m512i a = _mm512_set1_epi32(quad(rows.q[r] + 4 * (k + i * steps)));
#pragma GCC unroll 8
            for (int j = 0; j < J; ++j) whole[r][j] = _mm512_dpbusd_epi32(whole[r][j], w[i][j], a);
          }
      }
#pragma GCC unroll 8
      for (int j = 0; j < J; ++j) {
        const std::byte* at = unit + 32 * (first + j);
        const __m512 d = halves(at), m = I::minimum ? halves(at + 128) : d;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
          sum[r][first + j] = add_group<I::minimum>(whole[r][j], d, rows.total[r], m, rows.step[r], sum[r][first + j]);
      }
    }
  }
  finish<R>(sum, out, stride);
}

// Many rows take what stays in the first cache of a panel, tile by tile, before they go on.
template <PackedFormat F, int Most>
void integer_tiles(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                   std::int64_t stride) {
  using I = Integers<F>;
  constexpr std::int64_t block = 6 * I::parts; // groups
  constexpr bool bytes = I::parts == 1;
  const std::int64_t tiles = (rows + Most - 1) / Most, groups = tiles == 1 ? x.groups() : block;
  // asks_for_few says why bytes under few rows, but more than one, may be left unasked.
  const int lines = bytes && rows > 1 && rows <= kTile && !asks_for_few() ? 0 : (I::bytes / 64 + kAsks - 1) / kAsks;
  std::int64_t g = 0;
  do {
    const std::int64_t count = x.groups() - g < groups ? x.groups() - g : groups;
    const std::byte* unit = panel.at + g * I::bytes;
    for_tiles<Most>(rows, [&]<int R>(std::int64_t r) {
      constexpr int vectors = bytes && R < kTile ? kVectors : 2;
      integer_tile<F, R, vectors>(
          unit, g, count, x, first + r, out + r * stride, stride,
          Ahead(reach<F>(), unit, count * kAsks, lines, r / Most, tiles, 2).jump(unit + count * I::bytes, panel.then));
    });
  } while ((g += groups) < x.groups());
}

template <PackedFormat F>
void integer_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                     std::int64_t stride) {
  if (Integers<F>::parts == 1 && rows > 2 * kTile) return integer_tiles<F, 3>(panel, x, first, rows, out, stride);
  integer_tiles<F, kTile>(panel, x, first, rows, out, stride);
}

void round(const float* x, std::int64_t count, std::uint16_t* out) {
  for_vectors<V512>(count, [&](std::int64_t i, std::int64_t n) {
    const auto rounded = (__m256i)_mm512_cvtneps_pbh(get<V512>(x + i, n).v);
    _mm256_mask_storeu_epi16(out + i, V512::part(n), rounded);
  });
}

void quantise(const float* x, std::int64_t count, std::int8_t* q, float* scale, std::int32_t* sum) {
  for (std::int64_t g = 0; g < count / kGroup; ++g, x += kGroup, q += kGroup) {
    const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    const __m512 inverse = _mm512_set1_ps(largest > kSmallest ? 127.0f / largest : 0.0f);
    const bool finite = (_mm512_fpclass_ps_mask(a, 0x99) | _mm512_fpclass_ps_mask(b, 0x99)) == 0;
    const __m512i m = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)), n = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtsepi32_epi8(m));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16), _mm512_cvtsepi32_epi8(n));
    scale[g] = finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
    sum[g] = finite ? _mm512_reduce_add_epi32(_mm512_add_epi32(m, n)) : 0;
  }
}

void soften_scores(float* scores, std::int64_t visible, std::int64_t padded, float& largest, float& sum,
                   const Behind& behind) {
  Ahead ahead(values_reach(), behind, visible / (4 * V512::width));
  soften<V512>(scores, visible, padded, largest, sum, [&] { ahead.fetch(); });
}

} // namespace

extern const Kernels avx512_kernels;
const Kernels avx512_kernels = {
    Tier::avx512,
    true,
    {bf16_product, integer_product<PackedFormat::int8g32>, integer_product<PackedFormat::int4g32>,
     integer_product<PackedFormat::int4g32m>, short_product},
    nullptr,
    round,
    quantise,
    silu_multiply<V512>,
    silu_gradient<V512>,
    gelu<V512>,
    add_scaled<V512>,
    dot<V512>,
    attend<V512>,
    attend_gradient<V512>,
    soften_scores,
    largest<V512>,
    above<V512>,
    best<V512>,
    row_kernels};

} // namespace tenon::cpu

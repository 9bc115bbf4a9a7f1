// Compiled with AVX-512 F, BW, VL, DQ, BF16 and VNNI; reached only where the processor has them.
#include "kernels/cpu/vectors.hpp"

#include <immintrin.h>

#include <cstring>

// Arrays of registers stay registers only where every function and loop over them dissolves.
#define TENON_INLINE inline __attribute__((always_inline))

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

constexpr int kVectors = 4;                                // of a panel
constexpr std::int64_t kPairBytes = 256;                   // of a panel, for two inputs
constexpr std::int64_t kBlockPairs = 64, kBlockGroups = 8; // of weights that stay in the first cache: 16 KiB

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

// A few rows stream the weights from memory: ask for them well ahead.
template <int R>
TENON_INLINE void fetch(const std::byte* at) {
  if constexpr (R <= 2) {
    for (int line = 0; line < 4; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(at + 3072 + 64 * line), _MM_HINT_T0);
  }
}

template <int R>
void bf16_tile(const std::byte* pairs, std::int64_t count, const std::uint16_t* x, std::int64_t x_stride, float* out,
               std::int64_t stride, bool fresh) {
  __m512 sum[R][kVectors];
  begin<R>(sum, out, stride, fresh);
  for (std::int64_t p = 0; p < count; ++p) {
    const std::byte* at = pairs + p * kPairBytes;
    __m512bh w[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) w[j] = (__m512bh)_mm512_loadu_si512(at + 64 * j);
    fetch<R>(at);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto a = (__m512bh)_mm512_set1_epi32(quad(x + r * x_stride + 2 * p));
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[r][j] = _mm512_dpbf16_ps(sum[r][j], a, w[j]);
    }
  }
  finish<R>(sum, out, stride);
}

void bf16_product(const std::byte* panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                  std::int64_t stride) {
  constexpr int most = 6;
  const std::int64_t x_stride = x.bf16_stride(), pairs = x_stride / 2, block = rows <= most ? pairs : kBlockPairs;
  if (pairs == 0) return for_tiles<1>(rows, [&]<int R>(std::int64_t r) { std::memset(out + r * stride, 0, 256); });
  for (std::int64_t p = 0; p < pairs; p += block) {
    const std::int64_t count = pairs - p < block ? pairs - p : block;
    for_tiles<most>(rows, [&]<int R>(std::int64_t r) {
      bf16_tile<R>(panel + p * kPairBytes, count, x.bf16 + (first + r) * x_stride + 2 * p, x_stride, out + r * stride,
                   stride, p == 0);
    });
  }
}

__m512 halves(const std::byte* at, int j) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 32 * j)));
}

template <PackedFormat F>
struct Integers {
  static constexpr bool wide = F == PackedFormat::int8g32, minimum = F == PackedFormat::int4g32m;
  static constexpr std::int64_t head = minimum ? 256 : 128, bytes = head + (wide ? 2048 : 1024);
  static constexpr int offset = wide ? 128 : minimum ? 0 : 8;
};

template <int R>
TENON_INLINE void add_group(const __m512i (&whole)[R][kVectors], const std::byte* unit, bool minimum,
                            const Activations& x, std::int64_t row, std::int64_t group, __m512 (&sum)[R][kVectors]) {
  __m512 d[kVectors];
#pragma GCC unroll 8
  for (int j = 0; j < kVectors; ++j) d[j] = halves(unit, j);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const __m512 step = _mm512_set1_ps(x.scale[(row + r) * x.groups() + group]);
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j)
      sum[r][j] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(whole[r][j]), step), d[j], sum[r][j]);
  }
  if (!minimum) return;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const std::int64_t at = (row + r) * x.groups() + group;
    const __m512 shift = _mm512_set1_ps(static_cast<float>(x.sum[at]) * x.scale[at]);
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) sum[r][j] = _mm512_fmadd_ps(halves(unit + 128, j), shift, sum[r][j]);
  }
}

// Integer sums of one group whose weights stand as bytes, 8 quads of 256.
template <int R, int offset>
TENON_INLINE void multiply_bytes(const std::byte* bytes, const Activations& x, std::int64_t row, std::int64_t group,
                                 __m512i (&whole)[R][kVectors]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) whole[r][j] = _mm512_set1_epi32(-offset * x.sum[(row + r) * x.groups() + group]);
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) {
    __m512i w[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) w[j] = _mm512_loadu_si512(bytes + 256 * k + 64 * j);
    fetch<R>(bytes + 256 * k);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512i a = _mm512_set1_epi32(quad(x.q + (row + r) * x.width + group * kGroup + 4 * k));
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) whole[r][j] = _mm512_dpbusd_epi32(whole[r][j], w[j], a);
    }
  }
}

// The same from quarters, two to a byte.
template <int R, int offset>
TENON_INLINE void multiply_quarters(const std::byte* quarters, const Activations& x, std::int64_t row,
                                    std::int64_t group, __m512i (&whole)[R][kVectors]) {
  const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) whole[r][j] = _mm512_set1_epi32(-offset * x.sum[(row + r) * x.groups() + group]);
#pragma GCC unroll 8
  for (int k = 0; k < 4; ++k) {
    fetch<R>(quarters + 256 * k);
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      const __m512i both = _mm512_loadu_si512(quarters + 256 * k + 64 * j), first = _mm512_and_si512(both, low),
                    second = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const std::int8_t* a = x.q + (row + r) * x.width + group * kGroup + 4 * k;
        whole[r][j] = _mm512_dpbusd_epi32(whole[r][j], first, _mm512_set1_epi32(quad(a)));
        whole[r][j] = _mm512_dpbusd_epi32(whole[r][j], second, _mm512_set1_epi32(quad(a + 16)));
      }
    }
  }
}

// Two quarters a byte to a byte each, for the groups of one block.
void spread(const std::byte* units, std::int64_t stride, std::int64_t head, std::int64_t groups, std::byte* out) {
  const __m512i low = _mm512_set1_epi8(15);
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::byte* from = units + g * stride + head;
    std::byte* to = out + g * 2048;
    for (int i = 0; i < 1024; i += 64) {
      const __m512i both = _mm512_loadu_si512(from + i);
      _mm512_storeu_si512(to + i, _mm512_and_si512(both, low));
      _mm512_storeu_si512(to + 1024 + i, _mm512_and_si512(_mm512_srli_epi16(both, 4), low));
    }
  }
}

template <PackedFormat F, int R>
void integer_tile(const std::byte* units, const std::byte* bytes, std::int64_t from, std::int64_t to,
                  const Activations& x, std::int64_t row, float* out, std::int64_t stride) {
  using I = Integers<F>;
  __m512 sum[R][kVectors];
  begin<R>(sum, out, stride, from == 0);
  for (std::int64_t g = from; g < to; ++g) {
    const std::byte* unit = units + g * I::bytes;
    __m512i whole[R][kVectors];
    if constexpr (I::wide)
      multiply_bytes<R, I::offset>(unit + I::head, x, row, g, whole);
    else if (bytes)
      multiply_bytes<R, I::offset>(bytes + (g - from) * 2048, x, row, g, whole);
    else
      multiply_quarters<R, I::offset>(unit + I::head, x, row, g, whole);
    add_group<R>(whole, unit, I::minimum, x, row, g, sum);
  }
  finish<R>(sum, out, stride);
}

template <PackedFormat F>
void integer_product(const std::byte* panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                     std::int64_t stride) {
  using I = Integers<F>;
  constexpr int most = 3;
  const std::int64_t groups = x.groups(), block = rows < most ? groups : kBlockGroups;
  if (groups == 0) return for_tiles<1>(rows, [&]<int R>(std::int64_t r) { std::memset(out + r * stride, 0, 256); });
  alignas(64) std::byte bytes[kBlockGroups * 2048];
  for (std::int64_t g = 0; g < groups; g += block) {
    const std::int64_t end = groups - g < block ? groups : g + block;
    const bool spreads = !I::wide && rows >= most;
    if (spreads) spread(panel + g * I::bytes, I::bytes, I::head, end - g, bytes);
    for_tiles<most>(rows, [&]<int R>(std::int64_t r) {
      integer_tile<F, R>(panel, spreads ? bytes : nullptr, g, end, x, first + r, out + r * stride, stride);
    });
  }
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

} // namespace

extern const Kernels avx512_kernels;
const Kernels avx512_kernels = {Tier::avx512,
                                {bf16_product, integer_product<PackedFormat::int8g32>,
                                 integer_product<PackedFormat::int4g32>, integer_product<PackedFormat::int4g32m>},
                                round,
                                quantise,
                                silu_multiply<V512>,
                                gelu<V512>,
                                add_scaled<V512>,
                                dot<V512>,
                                attend<V512>};

} // namespace tenon::cpu

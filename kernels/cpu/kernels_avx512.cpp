// Compiled with AVX-512 F, BW, VL, DQ, BF16 and VNNI; reached only where the processor has them.
#include "kernels/cpu/attention_vectors.hpp"
#include "kernels/cpu/integers_avx512.hpp"
#include "kernels/cpu/pairs_avx512.hpp"
#include "kernels/cpu/row_loops.hpp"

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

// How far values are asked for while scores become weights (decision 0015, item 18).
Reach values_reach() { return newer_amd() ? Reach{12288, true} : Reach{4096}; }

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

// Compiled with AVX2, FMA and F16C; reached only where the processor has them.
#include "kernels/cpu/ahead.hpp"
#include "kernels/cpu/attention_vectors.hpp"
#include "kernels/cpu/integers_avx2.hpp"
#include "kernels/cpu/pairs_avx2.hpp"
#include "kernels/cpu/row_loops.hpp"

#include <immintrin.h>

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

// How far ahead values are asked for while scores become weights; the fastest of what was tried from 256 to 8192.
constexpr Reach kValuesReach = {4096};

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
    {bf16_product, integer_product<PackedFormat::int8g32>, integer_product<PackedFormat::int4g32>,
     integer_product<PackedFormat::int4g32m>, short_product},
    integer_product<PackedFormat::int8g32, true>,
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

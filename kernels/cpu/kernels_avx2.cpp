// Compiled with AVX2, FMA and F16C; reached only where the processor has them.
#include "kernels/cpu/vectors.hpp"

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

float widened(std::uint16_t bits) {
  const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

// R rows and N vectors of outputs: one row takes the whole panel, which it streams from memory.
template <int R, int N>
void bf16_tile(const std::byte* pairs, std::int64_t count, const std::uint16_t* x, std::int64_t x_stride, float* out,
               std::int64_t stride) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  __m256 sum[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sum[r][j] = _mm256_setzero_ps();
  for (std::int64_t p = 0; p < count; ++p) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      const __m256i w = load(pairs + 256 * p + 32 * j);
      const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)),
                   odd = _mm256_castsi256_ps(_mm256_and_si256(w, upper));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const std::uint16_t* a = x + r * x_stride + 2 * p;
        sum[r][j] = _mm256_fmadd_ps(_mm256_set1_ps(widened(a[0])), even, sum[r][j]);
        sum[r][j] = _mm256_fmadd_ps(_mm256_set1_ps(widened(a[1])), odd, sum[r][j]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) _mm256_storeu_ps(out + r * stride + 8 * j, sum[r][j]);
}

void bf16_product(const std::byte* panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                  std::int64_t stride) {
  const std::int64_t x_stride = x.bf16_stride();
  for_tiles<4>(rows, [&]<int R>(std::int64_t r) {
    constexpr int vectors = R == 1 ? 8 : R == 2 ? 4 : 2;
    for (std::int64_t lane = 0; lane < kPanel; lane += 8 * vectors)
      bf16_tile<R, vectors>(panel + 4 * lane, x_stride / 2, x.bf16 + (first + r) * x_stride, x_stride,
                            out + r * stride + lane, stride);
  });
}

__m256 halves(const std::byte* at) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))); }

// Signed weights: |w| as unsigned against x with w's sign. Two products are at most 2 * 128 * 127 = 32512, so that the
// saturating sum of 16 bits never saturates.
__m256i signed_quads(__m256i w, __m256i x) { return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)); }
__m256i add_quads(__m256i sum, __m256i pairs) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// Integer sum of one group for 8 lanes at byte `at` of every quad.
template <PackedFormat F>
__m256i group_sum(const std::byte* at, const std::int8_t* x, std::int32_t sum_of_x) {
  if constexpr (F == PackedFormat::int8g32) {
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      const __m256i w = _mm256_xor_si256(load(at + 256 * k), _mm256_set1_epi8(static_cast<char>(0x80)));
      sum = add_quads(sum, signed_quads(w, _mm256_set1_epi32(quad(x + 4 * k))));
    }
    return sum;
  } else {
    constexpr int offset = F == PackedFormat::int4g32 ? 8 : 0;
    const __m256i low = _mm256_set1_epi8(15);
    __m256i sum = _mm256_set1_epi32(-offset * sum_of_x);
#pragma GCC unroll 8
    for (int k = 0; k < 4; ++k) {
      const __m256i both = load(at + 256 * k), first = _mm256_and_si256(both, low),
                    second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
      sum = add_quads(sum, _mm256_maddubs_epi16(first, _mm256_set1_epi32(quad(x + 4 * k))));
      sum = add_quads(sum, _mm256_maddubs_epi16(second, _mm256_set1_epi32(quad(x + 16 + 4 * k))));
    }
    return sum;
  }
}

// The first row reads the panel from memory, and asks for what lies a page on before the processor's own prefetchers
// are under way.
void ask_a_page_on(const std::byte* at, std::int64_t bytes) {
  for (std::int64_t i = kPage; i < kPage + bytes; i += 64)
    _mm_prefetch(reinterpret_cast<const char*>(at + i), _MM_HINT_T1);
}

template <PackedFormat F>
void integer_product(const std::byte* panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                     std::int64_t stride) {
  constexpr bool minimum = F == PackedFormat::int4g32m;
  constexpr std::int64_t head = minimum ? 256 : 128, bytes = head + (F == PackedFormat::int8g32 ? 2048 : 1024);
  constexpr int vectors = kPanel / 8;
  for (std::int64_t r = 0; r < rows; ++r) {
    __m256 sum[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) sum[j] = _mm256_setzero_ps();
    for (std::int64_t g = 0; g < x.groups(); ++g) {
      const std::byte* unit = panel + g * bytes;
      if (r == 0) ask_a_page_on(unit, bytes);
      const std::int64_t at = (first + r) * x.groups() + g;
      const std::int8_t* q = x.q + (first + r) * x.width + g * kGroup;
      const __m256 step = _mm256_set1_ps(x.scale[at]),
                   shift = _mm256_set1_ps(static_cast<float>(x.sum[at]) * x.scale[at]);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) {
        const __m256 part = _mm256_mul_ps(_mm256_cvtepi32_ps(group_sum<F>(unit + head + 32 * j, q, x.sum[at])), step);
        sum[j] = _mm256_fmadd_ps(part, halves(unit + 16 * j), sum[j]);
        if (minimum) sum[j] = _mm256_fmadd_ps(halves(unit + 128 + 16 * j), shift, sum[j]);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) _mm256_storeu_ps(out + r * stride + 8 * j, sum[j]);
  }
}

void quantise(const float* x, std::int64_t count, std::int8_t* q, float* scale, std::int32_t* sum) {
  const __m256 sign = _mm256_set1_ps(-0.0f), infinite = _mm256_set1_ps(std::numeric_limits<float>::infinity());
  for (std::int64_t g = 0; g < count / kGroup; ++g, x += kGroup, q += kGroup) {
    V256 most = V256::zero();
    bool finite = true;
    for (int i = 0; i < kGroup; i += 8) {
      const __m256 a = _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i));
      finite = finite && _mm256_movemask_ps(_mm256_cmp_ps(a, infinite, _CMP_NLT_UQ)) == 0;
      most = V256::max(most, {a});
    }
    const float largest = most.largest(), inverse = largest > kSmallest ? 127.0f / largest : 0.0f;
    sum[g] = 0;
    for (int i = 0; i < kGroup; ++i) {
      const int one = _mm_cvtss_si32(_mm_set_ss(x[i] * inverse));
      q[i] = static_cast<std::int8_t>(one);
      sum[g] += q[i];
    }
    scale[g] = finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
  }
}

} // namespace

extern const Kernels avx2_kernels;
const Kernels avx2_kernels = {Tier::avx2,
                              {bf16_product, integer_product<PackedFormat::int8g32>,
                               integer_product<PackedFormat::int4g32>, integer_product<PackedFormat::int4g32m>},
                              round_each,
                              quantise,
                              silu_multiply<V256>,
                              gelu<V256>,
                              add_scaled<V256>,
                              dot<V256>,
                              attend<V256>,
                              soften<V256>,
                              largest<V256>,
                              above<V256>,
                              best<V256>};

} // namespace tenon::cpu

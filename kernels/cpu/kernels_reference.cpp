// Plain C++, one number at a time: what every faster kernel must compute.
#include "kernels/cpu/attention_vectors.hpp"
#include "kernels/cpu/row_loops.hpp"
#include "kernels/cpu/short_exponents.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tenon::cpu {
namespace {

struct Scalar {
  static constexpr std::int64_t width = 1;
  static constexpr int tile = 1;
  float v;
  static Scalar load(const float* x) { return {*x}; }
  static Scalar load_part(const float* x, std::int64_t) { return {*x}; }
  void store(float* x) const { *x = v; }
  void store_part(float* x, std::int64_t) const { *x = v; }
  static Scalar set(float x) { return {x}; }
  static Scalar zero() { return {0.0f}; }
  static Scalar fma(Scalar a, Scalar b, Scalar c) { return {std::fma(a.v, b.v, c.v)}; }
  static Scalar max(Scalar a, Scalar b) { return {a.v > b.v ? a.v : b.v}; }
  static Scalar min(Scalar a, Scalar b) { return {a.v < b.v ? a.v : b.v}; }
  static Scalar round(Scalar a) { return {std::nearbyint(a.v)}; }
  static Scalar power(Scalar n) { return {std::ldexp(1.0f, std::isfinite(n.v) ? static_cast<int>(n.v) : 0)}; }
  float largest() const { return v; }
  float sum() const { return v; }
  std::uint32_t above(Scalar other) const { return v > other.v; }
  friend Scalar operator+(Scalar a, Scalar b) { return {a.v + b.v}; }
  friend Scalar operator-(Scalar a, Scalar b) { return {a.v - b.v}; }
  friend Scalar operator*(Scalar a, Scalar b) { return {a.v * b.v}; }
  friend Scalar operator/(Scalar a, Scalar b) { return {a.v / b.v}; }
  static void transpose(const float* in, std::int64_t, float* out, std::int64_t) { *out = *in; }
};

std::uint16_t half_at(const std::byte* at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return bits;
}

void bf16_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                  std::int64_t stride) {
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t lane = 0; lane < kPanel; ++lane) {
      float sum = 0.0f;
      for (std::int64_t c = 0; c < x.bf16_stride(); ++c) {
        const float w = nn::bf16_to_f32(half_at(panel.at + c / 2 * 256 + lane * 4 + c % 2 * 2));
        sum = std::fma(nn::bf16_to_f32(x.bf16[(first + r) * x.bf16_stride() + c]), w, sum);
      }
      out[r * stride + lane] = sum;
    }
}

void short_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                   std::int64_t stride) {
  const ShortPanel parts(panel.at, x.width);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t lane = 0; lane < kPanel; ++lane) {
      float sum = 0.0f;
      for (std::int64_t c = 0; c < x.bf16_stride(); ++c)
        sum = std::fma(nn::bf16_to_f32(x.bf16[(first + r) * x.bf16_stride() + c]),
                       nn::bf16_to_f32(parts.bits(c / 2, lane, c % 2)), sum);
      out[r * stride + lane] = sum;
    }
  add_outliers(parts, x.bf16 + first * x.bf16_stride(), x.bf16_stride(), rows, out, stride);
}

// The whole sum of one group: every product of integers is exact.
template <PackedFormat F>
std::int32_t group_sum(const std::byte* bytes, std::int64_t lane, const std::int8_t* x) {
  std::int32_t sum = 0;
  for (std::int64_t i = 0; i < kGroup; ++i) {
    const std::int64_t quad = F == PackedFormat::int8g32 ? i / 4 : i / 4 % 4;
    const int byte = std::to_integer<int>(bytes[quad * 256 + lane * 4 + i % 4]);
    const int q = F == PackedFormat::int8g32 ? byte : i < kGroup / 2 ? byte & 15 : byte >> 4;
    sum += (q - IntegerUnit<F>::offset) * x[i];
  }
  return sum;
}

template <PackedFormat F>
void integer_product(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                     std::int64_t stride) {
  using Unit = IntegerUnit<F>;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t lane = 0; lane < kPanel; ++lane) {
      float sum = 0.0f;
      for (std::int64_t g = 0; g < x.groups(); ++g) {
        const std::byte* unit = panel.at + g * Unit::bytes;
        const std::int64_t at = (first + r) * x.groups() + g;
        const std::int32_t whole = group_sum<F>(unit + Unit::head, lane, x.q + (first + r) * x.width + g * kGroup);
        const float numbers = static_cast<float>(whole), d = nn::f16_to_f32(half_at(unit + 2 * lane));
        if constexpr (Unit::minimum) {
          const float shift = static_cast<float>(x.sum[at]) * nn::f16_to_f32(half_at(unit + 128 + 2 * lane));
          sum = std::fma(std::fma(numbers, d, shift), x.scale[at], sum);
        } else {
          sum = std::fma(numbers * x.scale[at], d, sum);
        }
      }
      out[r * stride + lane] = sum;
    }
}

void quantise(const float* x, std::int64_t count, std::int8_t* q, float* scale, std::int32_t* sum) {
  for (std::int64_t g = 0; g < count / kGroup; ++g, x += kGroup, q += kGroup) {
    float largest = 0.0f;
    bool finite = true;
    for (std::int64_t i = 0; i < kGroup; ++i) {
      finite = finite && std::isfinite(x[i]);
      largest = std::max(largest, std::abs(x[i]));
    }
    const float inverse = finite && largest > kSmallest ? 127.0f / largest : 0.0f;
    sum[g] = 0;
    for (std::int64_t i = 0; i < kGroup; ++i) {
      q[i] = static_cast<std::int8_t>(finite ? std::nearbyint(x[i] * inverse) : 0.0f);
      sum[g] += q[i];
    }
    scale[g] = finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
  }
}

void soften_scores(float* scores, std::int64_t visible, std::int64_t padded, float& largest, float& sum,
                   const Behind&) {
  soften<Scalar>(scores, visible, padded, largest, sum, [] {});
}

} // namespace

extern const Kernels reference_kernels;
const Kernels reference_kernels = {
    Tier::reference,
    {bf16_product, integer_product<PackedFormat::int8g32>, integer_product<PackedFormat::int4g32>,
     integer_product<PackedFormat::int4g32m>, short_product},
    nullptr,
    round_each,
    quantise,
    silu_multiply<Scalar>,
    silu_gradient<Scalar>,
    gelu<Scalar>,
    add_scaled<Scalar>,
    dot<Scalar>,
    attend<Scalar>,
    attend_gradient<Scalar>,
    soften_scores,
    largest<Scalar>,
    above<Scalar>,
    best<Scalar>,
    row_kernels};

} // namespace tenon::cpu

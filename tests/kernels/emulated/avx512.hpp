// The instructions of AVX-512 that kernels/cpu/kernels_avx512.cpp uses, each as a loop over its lanes, so that the
// kernels made of them are tested on processors that have none. Included ahead of that file, it takes the intrinsics'
// names. What instructions do: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
// Speed says nothing here. Thread: pure functions; any.
#pragma once

#include <immintrin.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace tenon::emulated {

template <class L, std::size_t bytes = 64>
using Lanes = std::array<L, bytes / sizeof(L)>;

template <class L, class V>
Lanes<L, sizeof(V)> lanes(V v) {
  return std::bit_cast<Lanes<L, sizeof(V)>>(v);
}

// The vector of type Out whose lane i is f(i).
template <class Out, class L, class F>
Out made(F f) {
  Lanes<L, sizeof(Out)> out;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<L>(f(i));
  return std::bit_cast<Out>(out);
}

// Lane by lane of two vectors of float32.
template <class F>
__m512 of_two(__m512 a, __m512 b, F f) {
  const auto x = lanes<float>(a), y = lanes<float>(b);
  return made<__m512, float>([&](std::size_t i) { return f(x[i], y[i]); });
}

// Half with half, then quarter with quarter, and so on.
template <class L, class F>
L folded(__m512 v, F f) {
  auto x = lanes<L>(v);
  for (std::size_t half = x.size() / 2; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) x[i] = f(x[i], x[i + half]);
  return x[0];
}

// Instructions that move lanes do so within each 128 bits: out lane i is from(first lane of its 128 bits, i there).
template <class V, class L, class F>
V within(F from) {
  constexpr std::size_t n = 16 / sizeof(L);
  return made<V, L>([&](std::size_t i) { return from(i / n * n, i % n); });
}

template <class V, class L>
V interleaved(V a, V b, std::size_t first) {
  const auto x = lanes<L>(a), y = lanes<L>(b);
  return within<V, L>([&](std::size_t at, std::size_t i) { return (i % 2 ? y : x)[at + first + i / 2]; });
}

template <class V>
V loaded(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

// bfloat16 instructions take numbers below the smallest normal one as zeros, and make zeros of them.
inline float flushed(float x) { return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x; }
inline float bf16(std::uint16_t bits) { return flushed(std::bit_cast<float>(std::uint32_t{bits} << 16)); }
inline std::uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(flushed(x));
  if (std::isnan(x)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline __m512 set(float x) {
  return made<__m512, float>([&](std::size_t) { return x; });
}
inline __m512i set_int(std::int32_t x) {
  return made<__m512i, std::int32_t>([&](std::size_t) { return x; });
}
inline __m512i set_bytes(char x) {
  return made<__m512i, std::int8_t>([&](std::size_t) { return x; });
}
inline __m512 load_part(std::uint32_t mask, const float* from) {
  return made<__m512, float>([&](std::size_t i) { return mask >> i & 1 ? from[i] : 0.0f; });
}
template <class L, class V>
void store_part(L* to, std::uint32_t mask, V v) {
  const auto x = lanes<L>(v);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (mask >> i & 1) to[i] = x[i];
}
template <class F>
std::uint32_t mask_of(__m512 v, F holds) {
  const auto x = lanes<float>(v);
  std::uint32_t mask = 0;
  for (std::size_t i = 0; i < x.size(); ++i) mask |= std::uint32_t{holds(i, x[i])} << i;
  return mask;
}

inline __m512 fma(__m512 a, __m512 b, __m512 c) {
  const auto x = lanes<float>(a), y = lanes<float>(b), z = lanes<float>(c);
  return made<__m512, float>([&](std::size_t i) { return std::fma(x[i], y[i], z[i]); });
}
inline __m512 scaled(__m512 a, __m512 b) {
  return of_two(a, b,
                [](float x, float n) { return std::isnan(n) ? n : std::ldexp(x, static_cast<int>(std::floor(n))); });
}
inline __m512 widened(__m256i halves) {
  const auto x = lanes<std::uint16_t>(halves);
  return made<__m512, float>([&](std::size_t i) { return _cvtsh_ss(x[i]); });
}
inline __m512i to_int(__m512 v) {
  const auto x = lanes<float>(v);
  return made<__m512i, std::int32_t>([&](std::size_t i) { return _mm_cvtss_si32(_mm_set_ss(x[i])); });
}
inline __m512 to_float(__m512i v) {
  const auto x = lanes<std::int32_t>(v);
  return made<__m512, float>([&](std::size_t i) { return x[i]; });
}
inline __m128i to_bytes(__m512i v) { // saturated
  const auto x = lanes<std::int32_t>(v);
  return made<__m128i, std::int8_t>([&](std::size_t i) { return x[i] < -128 ? -128 : x[i] > 127 ? 127 : x[i]; });
}
inline __m256bh rounded(__m512 v) {
  const auto x = lanes<float>(v);
  return made<__m256bh, std::uint16_t>([&](std::size_t i) { return to_bf16(x[i]); });
}

// Of every pair the second product is added first, with no rounding between product and sum.
inline __m512 add_pairs(__m512 sum, __m512bh a, __m512bh b) {
  const auto s = lanes<float>(sum);
  const auto x = lanes<std::uint16_t>(a), y = lanes<std::uint16_t>(b);
  return made<__m512, float>([&](std::size_t i) {
    const float first = flushed(std::fma(bf16(x[2 * i + 1]), bf16(y[2 * i + 1]), flushed(s[i])));
    return flushed(std::fma(bf16(x[2 * i]), bf16(y[2 * i]), first));
  });
}
inline __m512i add_quads(__m512i sum, __m512i a, __m512i b) {
  const auto s = lanes<std::uint32_t>(sum);
  const auto x = lanes<std::uint8_t>(a);
  const auto y = lanes<std::int8_t>(b);
  return made<__m512i, std::uint32_t>([&](std::size_t i) {
    std::int32_t dot = 0;
    for (std::size_t j = 4 * i; j < 4 * i + 4; ++j) dot += x[j] * y[j];
    return s[i] + static_cast<std::uint32_t>(dot);
  });
}

inline __m512i add_int(__m512i a, __m512i b) {
  const auto x = lanes<std::uint32_t>(a), y = lanes<std::uint32_t>(b);
  return made<__m512i, std::uint32_t>([&](std::size_t i) { return x[i] + y[i]; });
}
inline __m512i shifted(__m512i v, int by) {
  const auto x = lanes<std::uint16_t>(v);
  return made<__m512i, std::uint16_t>([&](std::size_t i) { return x[i] >> by; });
}
// Bit of the table that three bits name.
inline __m512i looked_up(__m512i a, __m512i b, __m512i c, int table) {
  const auto x = lanes<std::uint32_t>(a), y = lanes<std::uint32_t>(b), z = lanes<std::uint32_t>(c);
  return made<__m512i, std::uint32_t>([&](std::size_t i) {
    std::uint32_t out = 0;
    for (int bit = 0; bit < 32; ++bit) {
      const std::uint32_t place = (x[i] >> bit & 1) << 2 | (y[i] >> bit & 1) << 1 | (z[i] >> bit & 1);
      out |= (static_cast<std::uint32_t>(table) >> place & 1) << bit;
    }
    return out;
  });
}
inline __m512i picked(__m512i a, __m512i places) {
  const auto x = lanes<std::uint8_t>(a), p = lanes<std::uint8_t>(places);
  return within<__m512i, std::uint8_t>(
      [&](std::size_t at, std::size_t i) { return p[at + i] & 0x80 ? 0 : x[at + (p[at + i] & 15)]; });
}
inline __m512 shuffled(__m512 a, __m512 b, unsigned places) {
  const auto x = lanes<float>(a), y = lanes<float>(b);
  return within<__m512, float>(
      [&](std::size_t at, std::size_t i) { return (i < 2 ? x : y)[at + (places >> 2 * i & 3)]; });
}
inline __m512 blended(__m512 otherwise, std::uint32_t mask, __m128 four) {
  const auto x = lanes<float>(otherwise);
  const auto y = lanes<float>(four);
  return made<__m512, float>([&](std::size_t i) { return mask >> i & 1 ? y[i % 4] : x[i]; });
}

inline __m512i repeated(__m128i sixteen) {
  const auto x = lanes<std::uint8_t>(sixteen);
  return made<__m512i, std::uint8_t>([&](std::size_t i) { return x[i % 16]; });
}

} // namespace tenon::emulated

#define _mm512_loadu_ps(from) ::tenon::emulated::loaded<__m512>(from)
#define _mm512_loadu_si512(from) ::tenon::emulated::loaded<__m512i>(from)
#define _mm512_storeu_ps(to, v) (void)std::memcpy(to, &static_cast<const __m512&>(v), 64)
#define _mm512_store_si512(to, v) (void)std::memcpy(to, &static_cast<const __m512i&>(v), 64)
#define _mm512_maskz_loadu_ps(mask, from) ::tenon::emulated::load_part(mask, from)
#define _mm512_mask_storeu_ps(to, mask, v) ::tenon::emulated::store_part<float>(to, mask, v)
#define _mm256_mask_storeu_epi16(to, mask, v) ::tenon::emulated::store_part<std::uint16_t>(to, mask, v)
#define _mm512_setzero_ps() ::tenon::emulated::set(0.0f)
#define _mm512_set1_ps(x) ::tenon::emulated::set(x)
#define _mm512_set1_epi32(x) ::tenon::emulated::set_int(x)
#define _mm512_set1_epi8(x) ::tenon::emulated::set_bytes(x)
#define _mm512_add_ps(a, b) ((a) + (b))
#define _mm512_sub_ps(a, b) ((a) - (b))
#define _mm512_mul_ps(a, b) ((a) * (b))
#define _mm512_div_ps(a, b) ((a) / (b))
#define _mm512_fmadd_ps(a, b, c) ::tenon::emulated::fma(a, b, c)
#define _mm512_max_ps(a, b) ::tenon::emulated::of_two(a, b, [](float x, float y) { return x > y ? x : y; })
#define _mm512_min_ps(a, b) ::tenon::emulated::of_two(a, b, [](float x, float y) { return x < y ? x : y; })
#define _mm512_abs_ps(a) ::tenon::emulated::of_two(a, a, [](float x, float) { return std::abs(x); })
#define _mm512_roundscale_ps(a, to_nearest) \
  ::tenon::emulated::of_two(a, a, [](float x, float) { return std::nearbyint(x); })
#define _mm512_scalef_ps(a, b) ::tenon::emulated::scaled(a, b)
#define _mm512_reduce_max_ps(v) ::tenon::emulated::folded<float>(v, [](float x, float y) { return x > y ? x : y; })
#define _mm512_reduce_add_ps(v) ::tenon::emulated::folded<float>(v, [](float x, float y) { return x + y; })
#define _mm512_reduce_add_epi32(v)                                  \
  ::tenon::emulated::folded<std::int32_t>(std::bit_cast<__m512>(v), \
                                          [](std::int32_t x, std::int32_t y) { return x + y; })
#define _mm512_cmp_ps_mask(a, b, greater) \
  ::tenon::emulated::mask_of(a, [y = ::tenon::emulated::lanes<float>(b)](std::size_t i, float x) { return x > y[i]; })
#define _mm512_fpclass_ps_mask(a, not_finite) \
  ::tenon::emulated::mask_of(a, [](std::size_t, float x) { return !std::isfinite(x); })
#define _mm512_castps128_ps512(four) \
  ::tenon::emulated::blended(::tenon::emulated::set(__builtin_nanf("")), 0x000f, four)
#define _mm512_mask_broadcast_f32x4(otherwise, mask, four) ::tenon::emulated::blended(otherwise, mask, four)
#define _mm512_broadcast_i32x4(sixteen) ::tenon::emulated::repeated(sixteen)
#define _mm512_unpacklo_ps(a, b) ::tenon::emulated::interleaved<__m512, float>(a, b, 0)
#define _mm512_unpackhi_ps(a, b) ::tenon::emulated::interleaved<__m512, float>(a, b, 2)
#define _mm512_unpacklo_epi8(a, b) ::tenon::emulated::interleaved<__m512i, std::uint8_t>(a, b, 0)
#define _mm512_unpackhi_epi8(a, b) ::tenon::emulated::interleaved<__m512i, std::uint8_t>(a, b, 8)
#define _mm512_shuffle_ps(a, b, places) ::tenon::emulated::shuffled(a, b, places)
#define _mm512_shuffle_epi8(a, places) ::tenon::emulated::picked(a, places)
#define _mm512_and_si512(a, b) ((a) & (b))
#define _mm512_srli_epi16(v, by) ::tenon::emulated::shifted(v, by)
#define _mm512_ternarylogic_epi32(a, b, c, table) ::tenon::emulated::looked_up(a, b, c, table)
#define _mm512_add_epi32(a, b) ::tenon::emulated::add_int(a, b)
#define _mm512_cvtepi32_ps(v) ::tenon::emulated::to_float(v)
#define _mm512_cvtps_epi32(v) ::tenon::emulated::to_int(v)
#define _mm512_cvtsepi32_epi8(v) ::tenon::emulated::to_bytes(v)
#define _mm512_cvtph_ps(halves) ::tenon::emulated::widened(halves)
#define _mm512_cvtneps_pbh(v) ::tenon::emulated::rounded(v)
#define _mm512_dpbf16_ps(sum, a, b) ::tenon::emulated::add_pairs(sum, a, b)
#define _mm512_dpbusd_epi32(sum, a, b) ::tenon::emulated::add_quads(sum, a, b)

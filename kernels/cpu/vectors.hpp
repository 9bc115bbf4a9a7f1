// Elementwise kernels and small products, written once over a vector type. Each tier's file instantiates them with its
// own.
//
// A vector type V has: width; load, load_part, store, store_part, set, zero; +, -, *, /; fma (a b + c); max and min
// (their second number where one is a NaN); round (nearest, ties to even), power (2^n for whole n in float range), sum
// and largest of the lanes (one fixed order); above (bit i: lane i is above the other's); and transpose(in, stride,
// out, out_stride): out[c][r] = in[r][c] for width x width numbers.
#pragma once

#include "kernels/cpu/kernels.hpp"

#include <cstring>
#include <limits>

// Arrays of registers stay registers only where every function and loop over them dissolves.
#define TENON_INLINE inline __attribute__((always_inline))

namespace tenon::cpu {

// Four bytes as one lane. Static: every tier has its own, in its own instructions.
static inline std::int32_t quad(const void* at) {
  std::int32_t bits;
  std::memcpy(&bits, at, 4);
  return bits;
}

// To bfloat16, one number at a time, for tiers without an instruction for it.
static inline void round_each(const float* x, std::int64_t count, std::uint16_t* out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = nn::f32_to_bf16(x[i]);
}

// Calls tile<R>(first row) until no row is left, the largest R first.
template <int Most, class Tile>
void for_tiles(std::int64_t rows, const Tile& tile) {
  std::int64_t r = 0;
  for (; rows - r >= Most; r += Most) tile.template operator()<Most>(r);
  if constexpr (Most > 1) {
    if (rows > r)
      for_tiles<Most - 1>(rows - r, [&]<int R>(std::int64_t next) { tile.template operator()<R>(r + next); });
  }
}

// The same in as few tiles as there can be, all of nearly the same size.
template <int Most, class Tile>
void for_even_tiles(std::int64_t rows, const Tile& tile) {
  const auto go = [&]<int R>(const auto& self, std::int64_t size, std::int64_t r) {
    if (size == R) return tile.template operator()<R>(r);
    if constexpr (R > 1) self.template operator()<R - 1>(self, size, r);
  };
  for (std::int64_t r = 0, left = (rows + Most - 1) / Most; left > 0; --left) {
    const std::int64_t size = (rows - r + left - 1) / left;
    go.template operator()<Most>(go, size, r);
    r += size;
  }
}

// Cody-Waite reduction and the minimax polynomial of Cephes' expf; relative error below 2e-7 over [-87, 88].
template <class V>
inline V exponential(V x) {
  x = V::min(V::set(88.0f), V::max(V::set(-87.0f), x)); // in this order a NaN stays one
  const V n = V::round(x * V::set(1.44269504088896341f));
  V r = V::fma(n, V::set(-0.693359375f), x);
  r = V::fma(n, V::set(2.12194440e-4f), r);
  V p = V::set(1.9875691500e-4f);
  p = V::fma(p, r, V::set(1.3981999507e-3f));
  p = V::fma(p, r, V::set(8.3334519073e-3f));
  p = V::fma(p, r, V::set(4.1665795894e-2f));
  p = V::fma(p, r, V::set(1.6666665459e-1f));
  p = V::fma(p, r, V::set(5.0000001201e-1f));
  p = V::fma(p, r * r, r) + V::set(1.0f);
  return p * V::power(n);
}

// Calls each(first, count) for whole vectors and once for what is left over.
template <class V, class Each>
inline void for_vectors(std::int64_t count, const Each& each) {
  std::int64_t i = 0;
  for (; i + V::width <= count; i += V::width) each(i, V::width);
  if (i < count) each(i, count - i);
}

template <class V>
inline V get(const float* x, std::int64_t count) {
  return count == V::width ? V::load(x) : V::load_part(x, count);
}
template <class V>
inline void put(float* x, std::int64_t count, V value) {
  if (count == V::width) return value.store(x);
  value.store_part(x, count);
}

template <class V>
void silu_multiply(float* gate, const float* up, std::int64_t count) {
  for_vectors<V>(count, [&](std::int64_t i, std::int64_t n) {
    const V g = get<V>(gate + i, n), u = get<V>(up + i, n);
    put<V>(gate + i, n, g / (V::set(1.0f) + exponential(V::zero() - g)) * u);
  });
}

template <class V>
void silu_gradient(const float* gate, const float* up, const float* d, float* d_gate, float* d_up, std::int64_t count) {
  const V one = V::set(1.0f);
  for_vectors<V>(count, [&](std::int64_t i, std::int64_t n) {
    const V g = get<V>(gate + i, n), u = get<V>(up + i, n), y = get<V>(d + i, n);
    const V s = one / (one + exponential(V::zero() - g)), a = g * s;
    put<V>(d_gate + i, n, y * u * (s + a * (one - s)));
    put<V>(d_up + i, n, y * a);
  });
}

template <class V>
void gelu(float* x, std::int64_t count) {
  for_vectors<V>(count, [&](std::int64_t i, std::int64_t n) {
    const V a = get<V>(x + i, n), z = a * V::fma(V::set(0.044715f * 0.79788456f), a * a, V::set(0.79788456f));
    put<V>(x + i, n, a / (V::set(1.0f) + exponential(V::set(-2.0f) * z)));
  });
}

template <class V>
void add_scaled(float a, const float* x, float* y, std::int64_t count) {
  for_vectors<V>(count, [&](std::int64_t i, std::int64_t n) {
    put<V>(y + i, n, V::fma(V::set(a), get<V>(x + i, n), get<V>(y + i, n)));
  });
}

template <class V>
float dot(const float* a, const float* b, std::int64_t count) {
  V sum = V::zero();
  for_vectors<V>(count, [&](std::int64_t i, std::int64_t n) { sum = V::fma(get<V>(a + i, n), get<V>(b + i, n), sum); });
  return sum.sum();
}

// How a product of two small matrices reads its left one: row by row, or turned, a (depth, rows).
enum class Left { rows, columns };

// out (R rows, N vectors) = a (R, depth) b (depth, N vectors), or what out held and that; b and out have their strides.
// In the order of depth.
template <class V, Left L, bool Adds, int R, int N>
inline void multiply_tile(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride,
                          std::int64_t depth, float* out, std::int64_t out_stride, std::int64_t last) {
  const auto lanes = [&](int j) { return j == N - 1 ? last : V::width; };
  V sum[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sum[r][j] = Adds ? get<V>(out + r * out_stride + j * V::width, lanes(j)) : V::zero();
  for (std::int64_t k = 0; k < depth; ++k) {
    V column[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) column[j] = get<V>(b + k * b_stride + j * V::width, lanes(j));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V left = V::set(L == Left::rows ? a[r * a_stride + k] : a[k * a_stride + r]);
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sum[r][j] = V::fma(left, column[j], sum[r][j]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) put<V>(out + r * out_stride + j * V::width, lanes(j), sum[r][j]);
}

// The same for any number of rows and columns; every number of out is one sum in the order of depth.
template <class V, Left L, bool Adds, int N>
void multiply_columns(std::int64_t rows, const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride,
                      std::int64_t depth, float* out, std::int64_t out_stride, std::int64_t last) {
  for_tiles<6>(rows, [&]<int R>(std::int64_t r) {
    multiply_tile<V, L, Adds, R, N>(a + (L == Left::rows ? r * a_stride : r), a_stride, b, b_stride, depth,
                                    out + r * out_stride, out_stride, last);
  });
}

template <class V, Left L = Left::rows, bool Adds = false>
void multiply(std::int64_t rows, const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride,
              std::int64_t depth, float* out, std::int64_t out_stride, std::int64_t columns) {
  constexpr std::int64_t wide = V::tile * V::width;
  std::int64_t c = 0;
  for (; c + wide <= columns; c += wide)
    multiply_columns<V, L, Adds, V::tile>(rows, a, a_stride, b + c, b_stride, depth, out + c, out_stride, V::width);
  for_vectors<V>(columns - c, [&](std::int64_t i, std::int64_t n) {
    multiply_columns<V, L, Adds, 1>(rows, a, a_stride, b + c + i, b_stride, depth, out + c + i, out_stride, n);
  });
}

template <class V>
float largest(const float* x, std::int64_t count) {
  V most = V::set(-std::numeric_limits<float>::infinity());
  std::int64_t i = 0;
  for (; i + V::width <= count; i += V::width) most = V::max(most, V::load(x + i));
  float out = most.largest();
  for (; i < count; ++i) out = x[i] > out ? x[i] : out;
  return out;
}

// each(place) for the numbers above threshold, ascending; each may raise the threshold.
template <class V, class Each>
void for_above(const float* x, std::int64_t count, const float& threshold, const Each& each) {
  std::int64_t i = 0;
  for (; i + V::width <= count; i += V::width)
    for (std::uint32_t left = V::load(x + i).above(V::set(threshold)); left != 0; left &= left - 1)
      each(i + __builtin_ctz(left));
  for (; i < count; ++i)
    if (x[i] > threshold) each(i);
}

template <class V>
std::int64_t above(const float* x, std::int64_t count, float threshold, std::int32_t* places) {
  std::int64_t found = 0;
  for_above<V>(x, count, threshold, [&](std::int64_t i) { places[found++] = static_cast<std::int32_t>(i); });
  return found;
}

template <class V>
std::int64_t best(const float* x, std::int64_t count, std::int64_t k, std::int32_t* places) {
  std::int64_t held = 0;
  float least = -std::numeric_limits<float>::infinity();
  for_above<V>(x, count, least, [&](std::int64_t i) {
    if (held == k && !(x[i] > least)) return; // was above the threshold of its vector
    std::int64_t at = held < k ? held++ : k - 1;
    for (; at > 0 && x[places[at - 1]] < x[i]; --at) places[at] = places[at - 1];
    places[at] = static_cast<std::int32_t>(i);
    if (held == k) least = x[places[k - 1]];
  });
  return held;
}

} // namespace tenon::cpu

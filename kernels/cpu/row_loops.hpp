// Rows of numbers as plain loops, the same for every tier: each tier's file includes them, and the compiler makes its
// vectors of them. Static: every tier has its own, in its own instructions.
// Inside kernels/cpu only. Thread: pure functions; any.
#pragma once

#include "kernels/cpu/rows.hpp"

#include <bit>
#include <cmath>
#include <limits>

namespace tenon::cpu {

// Sixteen partial sums side by side, so that the compiler may use lanes without changing the order of summation.
static constexpr std::int64_t kLanes = 16;
static float sum_of_squares(const float* x, std::int64_t width) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * x[i + lane];
  float sum = 0.0f;
  for (const float lane : lanes) sum += lane;
  for (; i < width; ++i) sum += x[i] * x[i];
  return sum;
}

static float sum_of(const float* x, std::int64_t width) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane];
  float sum = 0.0f;
  for (const float lane : lanes) sum += lane;
  for (; i < width; ++i) sum += x[i];
  return sum;
}

static void centred(const float* x, float mean, float* y, std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] - mean;
}

static void scaled_and_shifted(float* x, const float* weight, const float* bias, float scale, std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) x[i] = x[i] * scale * weight[i] + bias[i];
}

static void scaled(const float* x, const float* weight, float scale, float* y, std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * weight[i];
}

static float sum_of_products(const float* x, const float* y, const float* z, std::int64_t width) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * y[i + lane] * z[i + lane];
  float sum = 0.0f;
  for (const float lane : lanes) sum += lane;
  for (; i < width; ++i) sum += x[i] * y[i] * z[i];
  return sum;
}

static void add_products(const float* x, const float* y, float scale, float* sum, std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) sum[i] += x[i] * y[i] * scale;
}

static void scaled_less(const float* d, const float* weight, float scale, const float* x, float less, float* out,
                        std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) out[i] = d[i] * weight[i] * scale - x[i] * less;
}

static void rotate(float* x, const float* cos, const float* sin, std::int64_t half) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float first = x[i], second = x[i + half];
    x[i] = first * cos[i] - second * sin[i];
    x[i + half] = second * cos[i] + first * sin[i];
  }
}

// The largest of these and of `top`; adds to `strange` how many are NaN or +infinity.
static float largest_of(const float* x, std::int64_t width, float top, std::int32_t& strange) {
  constexpr std::int64_t several = 4 * kLanes; // a maximum waits for itself
  float lanes[several];
  std::int32_t beyond[several] = {};
  for (float& lane : lanes) lane = top;
  std::int64_t i = 0;
  for (; i + several <= width; i += several)
    for (std::int64_t lane = 0; lane < several; ++lane) {
      lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
      beyond[lane] += !(x[i + lane] <= std::numeric_limits<float>::max());
    }
  for (std::int64_t lane = 0; lane < several; ++lane) {
    top = lanes[lane] > top ? lanes[lane] : top;
    strange += beyond[lane];
  }
  for (; i < width; ++i) {
    top = x[i] > top ? x[i] : top;
    strange += !(x[i] <= std::numeric_limits<float>::max());
  }
  return top;
}

static Peak peak_of_row(const float* x, std::int64_t width) {
  constexpr std::int64_t part = 4096; // numbers among which the largest is looked for again
  float top = -std::numeric_limits<float>::infinity();
  std::int64_t begin = width;
  std::int32_t strange = 0;
  for (std::int64_t i = 0; i < width; i += part)
    if (const float higher = largest_of(x + i, width - i < part ? width - i : part, top, strange); higher > top)
      top = higher, begin = i;
  while (begin < width && x[begin] != top) ++begin;
  return {begin < width ? begin : -1, strange == 0};
}

static double sum_of_row(const float* x, std::int64_t width) {
  double lanes[kLanes] = {}, sum = 0;
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane];
  for (const double lane : lanes) sum += lane;
  for (; i < width; ++i) sum += x[i];
  return sum;
}

static void scale_row(float* x, float by, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) x[i] *= by;
}

static void widen_row(const std::uint16_t* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = std::bit_cast<float>(std::uint32_t{from[i]} << 16);
}

static void rms_norm_rows(const float* x, const float* weight, float* y, std::int64_t rows, std::int64_t width,
                          double eps) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = x + row * width;
    const auto mean = static_cast<double>(sum_of_squares(from, width)) / static_cast<double>(width);
    scaled(from, weight, static_cast<float>(1.0 / std::sqrt(mean + eps)), y + row * width, width);
  }
}

// With s = 1 / sqrt(mean(x^2) + eps):  d_x = s d w - x s^3 mean(d w x),  d_w = sum over rows of s d x.
static void rms_norm_gradient_rows(const float* x, const float* weight, const float* d, float* d_x, float* d_weight,
                                   std::int64_t rows, std::int64_t width, double eps) {
  const auto count = static_cast<double>(width);
  for (std::int64_t at = 0; at < rows * width; at += width) {
    const double s = 1.0 / std::sqrt(static_cast<double>(sum_of_squares(x + at, width)) / count + eps),
                 less = s * s * s * static_cast<double>(sum_of_products(d + at, weight, x + at, width)) / count;
    if (d_weight) add_products(d + at, x + at, static_cast<float>(s), d_weight, width);
    scaled_less(d + at, weight, static_cast<float>(s), x + at, static_cast<float>(less), d_x + at, width);
  }
}

static void layer_norm_rows(const float* x, const float* weight, const float* bias, float* y, std::int64_t rows,
                            std::int64_t width, double eps) {
  const auto count = static_cast<double>(width);
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = x + row * width;
    float* to = y + row * width;
    centred(from, static_cast<float>(static_cast<double>(sum_of(from, width)) / count), to, width);
    const double variance = static_cast<double>(sum_of_squares(to, width)) / count;
    scaled_and_shifted(to, weight, bias, static_cast<float>(1.0 / std::sqrt(variance + eps)), width);
  }
}

static void rotate_rows(float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t heads,
                        std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t head = 0; head < heads; ++head)
      rotate(x + (row * heads + head) * head_dim, cos + row * half, sin + row * half, half);
}

static constexpr RowKernels row_kernels = {
    rms_norm_rows, rms_norm_gradient_rows, layer_norm_rows, rotate_rows, peak_of_row, sum_of_row, scale_row, widen_row};

} // namespace tenon::cpu

#include "kernels/cpu/rows.hpp"

#include "kernels/cpu/tier.hpp"

#include <cmath>

namespace tenon::cpu {
namespace {

// Sixteen partial sums side by side, so that the compiler may use lanes without changing the order of summation.
constexpr std::int64_t kLanes = 16;
TENON_TIERS float sum_of_squares(const float* x, std::int64_t width) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * x[i + lane];
  float sum = 0.0f;
  for (const float lane : lanes) sum += lane;
  for (; i < width; ++i) sum += x[i] * x[i];
  return sum;
}

TENON_TIERS float sum_of(const float* x, std::int64_t width) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane];
  float sum = 0.0f;
  for (const float lane : lanes) sum += lane;
  for (; i < width; ++i) sum += x[i];
  return sum;
}

TENON_TIERS void centred(const float* x, float mean, float* y, std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] - mean;
}

TENON_TIERS void scaled_and_shifted(float* x, const float* weight, const float* bias, float scale, std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) x[i] = x[i] * scale * weight[i] + bias[i];
}

TENON_TIERS void scaled(const float* x, const float* weight, float scale, float* y, std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * weight[i];
}

TENON_TIERS void rotate(float* x, const float* cos, const float* sin, std::int64_t half) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float first = x[i], second = x[i + half];
    x[i] = first * cos[i] - second * sin[i];
    x[i + half] = second * cos[i] + first * sin[i];
  }
}

} // namespace

void rms_norm_rows(const float* x, const float* weight, float* y, std::int64_t rows, std::int64_t width, double eps) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = x + row * width;
    const auto mean = static_cast<double>(sum_of_squares(from, width)) / static_cast<double>(width);
    scaled(from, weight, static_cast<float>(1.0 / std::sqrt(mean + eps)), y + row * width, width);
  }
}

void layer_norm_rows(const float* x, const float* weight, const float* bias, float* y, std::int64_t rows,
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

void rotate_rows(float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t heads,
                 std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t head = 0; head < heads; ++head)
      rotate(x + (row * heads + head) * head_dim, cos + row * half, sin + row * half, half);
}

} // namespace tenon::cpu

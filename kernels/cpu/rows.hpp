// Elementwise work on rows of float32, one pass over memory each: where LibTorch would make four or five.
//
// Rows are contiguous. Every output element has one order of summation, whatever the number of rows.
// Thread: pure functions; any.
#pragma once

#include <cstdint>

namespace tenon::cpu {

// The largest of a row: its place, the first among equals, -1 where all are -infinity; and whether none of them is a
// NaN or +infinity, without which the place says nothing.
struct Peak {
  std::int64_t place;
  bool numbers;
};

// Of one tier.
struct RowKernels {
  // y = x / sqrt(mean(x^2) + eps) * weight over each row of `width`. x and y may be the same.
  void (*rms_norm)(const float* x, const float* weight, float* y, std::int64_t rows, std::int64_t width, double eps);
  // Of y = rms_norm(x), from the gradient d towards y: that towards x, and, unless it is null, added to d_weight
  // (width) that towards the weight. d_x may be d's memory.
  void (*rms_norm_gradient)(const float* x, const float* weight, const float* d, float* d_x, float* d_weight,
                            std::int64_t rows, std::int64_t width, double eps);
  // y = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias over each row of `width`. x and y may be the same.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* y, std::int64_t rows,
                     std::int64_t width, double eps);
  // Turns pairs (i, i + D/2) of every head by the angles of its row, in place. x: (rows, heads, head_dim);
  // cos and sin: (rows, head_dim / 2).
  void (*rotate)(float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t heads,
                 std::int64_t head_dim);
  Peak (*peak)(const float* x, std::int64_t count);
  double (*sum)(const float* x, std::int64_t count); // in double precision
  void (*scale)(float* x, float by, std::int64_t count);
  void (*widen)(const std::uint16_t* from, float* to, std::int64_t count); // bfloat16 to float32
};

} // namespace tenon::cpu

// Products of rows with packed weights, over the pool: panels and chunks of rows are one flat space of tasks.
//
//   y = W x + bias + scale * b (a x);   bias and the low-rank change may be absent
//
// Shapes: N rows; C inputs; F outputs; R rank. All row-major. Requires: pointers outlive the call.
// Thread: one call at a time per Arena.
#pragma once

#include "kernels/cpu/engine.hpp"

#include <span>

namespace tenon::cpu {

// Hu et al. 2021 (arXiv 2106.09685), equation 3; in float32. b stands transposed, so that its lanes are outputs.
struct LowRankChange {
  std::int64_t rank = 0; // 0: none
  float scale = 1.0f;
  const float *a_RC = nullptr, *b_RF = nullptr;
};

// One for rows [first, first + count) of a call.
struct ChangeOfRows {
  std::int64_t first = 0, count = 0;
  const LowRankChange* change = nullptr;
};

struct Linear {
  PackedMatrix weight;
  const float* bias_F = nullptr;
  LowRankChange change = {};                  // of every row;
  std::span<const ChangeOfRows> by_rows = {}; // or, where there are any, these instead

  bool changes() const { return change.rank > 0 || !by_rows.empty(); }
  std::int64_t outputs() const { return weight.outputs; }
  std::int64_t inputs() const { return weight.inputs; }
};

// Which forms of their rows products read.
struct Forms {
  bool bf16 = false, int8 = false;
  Forms& operator|=(const Linear& linear) {
    (reads_bf16(linear.weight.format) ? bf16 : int8) = true;
    return *this;
  }
};

// Rows in those forms. x: as float32 too, where somebody keeps it. In two parts the form holds twice as many rows:
// beside each what rounding left over (kFine); a product is the sum of both's.
struct Rows : Activations {
  const float* x = nullptr;
  std::int64_t parts = 1;
};

// Converts float32 rows (N,C), which the result refers to.
Rows prepare(const Engine& engine, Arena& arena, const float* x, std::int64_t rows, std::int64_t width, Forms forms);
// In int8 in two parts: 16 bits of every group's largest number, where one part has 8.
Rows prepare_finely(const Engine& engine, Arena& arena, const float* x, std::int64_t rows, std::int64_t width);

// One product of several over the same rows.
struct Product {
  const Linear* linear;
  float* y = nullptr; // (N,F)
  bool adds = false;  // y += instead of y =
};
// Requires: rows have the forms of every product, and x where one has a low-rank change. next: products of as many rows
// that come after these; few rows ask memory for their weights in time. Of those only weights are looked at.
void multiply(const Engine& engine, Arena& arena, const Rows& rows, std::span<const Product> products,
              std::span<const Product> next = {});

// silu(gate x) * up x, or where there is no gate gelu(up x), in the forms asked for; keeps: x as well.
Rows multiply_gated(const Engine& engine, Arena& arena, const Rows& rows, const Linear* gate, const Linear& up,
                    Forms forms, bool keeps, std::span<const Product> next = {});

} // namespace tenon::cpu

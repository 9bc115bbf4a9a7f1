// What rounding may cost in tests of kernels and operators: all of it, in one table.
#pragma once

namespace tenon::test {

// Relative to the sum of the absolute values of a product's or formula's terms, unless said otherwise.
struct Tolerance {
  // Products against the same dequantised weights and rounded rows; of integers every sum of a group is exact.
  double bf16 = 2e-6, integers = 1e-6;
  // A product with bias and low-rank change, of numbers around 10, absolute; the same by LibTorch, of the whole.
  double changed = 1e-5, changed_operator = 1e-6;
  // A weight that fills its matrix alone, of itself, in every format.
  double lone_weight = 0.01;

  // silu(gate) * up, and gelu, of themselves; what the smallest may be off by in any case.
  double activation = 1e-6, gelu = 1e-5, smallest_activation = 1e-6;
  double elementwise = 2e-6, loss = 4e-6;
  // A row's sum in double precision, of numbers below 1, absolute.
  double row_sum = 1e-12;
  // A softmax over scores, absolute; and over a mixture's, which are products, of itself.
  double strengths = 2e-6, mixture_strengths = 1e-4;

  // Attention against the same rounded queries, keys and values. Over bf16 its weights are rounded as well, to 8 bits;
  // over int8, times the values' steps, to 127 steps of the largest among 32 positions, so that small ones beside a
  // large one err by their own size. What the smallest may be off by in any case.
  double attention = 2e-6, attention_bf16 = 1.0 / 256, attention_int8 = 0.1, smallest_attention = 1e-7;
  // Keys and values that come back, absolute: the very numbers, but in int8, where a tie may fall to either step.
  double kept = 1e-9, kept_int8 = 0.02;
  // Its gradients, and the sums that forward keeps for them.
  double attention_gradient = 4e-6, log_sum = 4e-6;

  // A run of blocks, of the size of what it adds, against formulas without any rounding: rows are rounded before each
  // product, integers by half a percent of their size, ten times on the way.
  double run = 0.02;
  // A run against plain blocks whose rows are rounded alike, of the whole: where a sum's last bit decides between two
  // steps the two may part by one step of one number. With keys in bf16 queries, keys, values and their weights have 8
  // bits; what that moves, the next rounding of rows may double.
  double plain_run = 2e-3, plain_run_bf16 = 2e-2;

  // Results and gradients of operators that train, of the whole. A norm over a single number cancels most of the
  // number's own gradient: that one absolute, beside 1.
  double trained = 2e-6, cancelled = 1e-5;
  // The same in bfloat16; a linear whose results, and what flows back into a product, are bfloat16; and a product
  // itself, of rounded numbers.
  double trained_bf16 = 1e-2, narrow_linear = 4e-3, narrow_product = 1e-6;
};
constexpr Tolerance kTolerance;

} // namespace tenon::test

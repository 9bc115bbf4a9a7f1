// What rounding may cost in tests of kernels, formats and formulas: all of it, in one table.
#pragma once

namespace tenon::test {

// Relative to the sum of the absolute values of a product's or formula's terms, unless said otherwise. Inputs are
// fixed, so every tier's error is one number: bounds are about twice the worst of them where integers decide it, and up
// to ten times where AVX-512's instructions, or LibTorch's on other processors, sum in another order.
struct Tolerance {
  // Products against the same dequantised weights and rounded rows. AVX-512 adds pairs of bf16 products to sixteen sums
  // and then those to one: six roundings even of a short row. Of integers every sum of a group is exact, and every tier
  // gives the same bits.
  double bf16 = 1e-6, integers = 1e-7;
  // Rows in two parts, of what rounding them to int8 loses.
  double two_parts = 0.01;
  // A product with bias and low-rank change, of numbers around 10, absolute; the same by LibTorch, of the whole.
  double changed = 1e-5, changed_operator = 1e-6;
  // A weight that fills its matrix alone, of itself, in every format: its step is an f16.
  double lone_weight = 1.5e-4;
  // A product in a format against float32, of the whole: its weights are rounded, and its rows. Blocks of Q8_0 keep
  // their very numbers, so there it is the rows alone.
  double product_bf16 = 6e-3, product_int8 = 2e-2, product_int4 = 0.12, product_stored = 1e-2;

  // silu(gate) * up, and gelu, of themselves; what the smallest may be off by in any case.
  double activation = 1e-6, gelu = 2e-6, smallest_activation = 5e-7;
  double elementwise = 2e-6, loss = 4e-6;
  // A loss's gradient in bfloat16 beside `loss`, absolute: half a step at 1.
  double narrow_gradient = 1.0 / 512;
  // A row's sum in double precision, of numbers below 1, absolute.
  double row_sum = 1e-12;
  // A softmax over scores, absolute; and over a mixture's, which are products, of itself.
  double strengths = 1e-6, mixture_strengths = 1e-4;

  // Attention against the same rounded queries, keys and values. Over bf16 its weights are rounded as well, to 8 bits.
  // Over int8 they are rounded, times the values' steps, to 127 steps of the largest among 32 positions: relative to
  // the terms as if all of a position's values were as large as its largest.
  double attention = 2e-6, attention_bf16 = 1.0 / 256, attention_int8 = 0.02;
  // Keys and values that come back in int8, absolute: a tie may fall to either step, and a step of numbers below 2 is
  // 2 / 127. In other forms they are the very numbers.
  double kept_int8 = 0.016;
  // Its gradients, and the sums that forward keeps for them.
  double attention_gradient = 4e-6, log_sum = 4e-6;

  // A run of blocks, of the size of what it adds, against formulas without any rounding: rows are rounded before each
  // product, integers by half a percent of their size, ten times on the way.
  double run = 0.02;
  // A run against plain blocks whose rows are rounded alike, of the whole: where a sum's last bit decides between two
  // steps the two may part by one step of one number. With keys in bf16 queries, keys, values and their weights have 8
  // bits; what that moves, the next rounding of rows may double.
  double plain_run = 2e-3, plain_run_bf16 = 2e-2;
  // A mixture of experts against row by row, of the whole: in float32, and on rows rounded alike, which may part as
  // those of a run do. The gradient of its balance is a difference of two far larger ones.
  double mixture = 1e-5, packed_mixture = 2e-3, balance_gradient = 1e-3;

  // Blocks as one operator against LibTorch's, in float32, absolute, of numbers around 1; and in another split, where
  // LibTorch multiplies another number of rows.
  double blocks = 1e-5, split_blocks = 5e-5;
  // A low-rank product that adds nothing, and one that adds numbers around 1, absolute: one step of float32, and a few.
  double newborn = 1e-6, low_rank = 1e-5;
  // A slope of double-precision blocks by differences, of itself: the differences' own curvature.
  double slope = 1e-5;

  // Results and gradients of operators that train, of the whole. A norm over a single number cancels most of the
  // number's own gradient: that one absolute, beside 1.
  double trained = 2e-6, cancelled = 1e-5;
  // The same in bfloat16; a linear whose results, and what flows back into a product, are bfloat16; and a product
  // itself, of rounded numbers.
  double trained_bf16 = 1e-2, narrow_linear = 4e-3, narrow_product = 1e-6;
  // Losses over a vocabulary in chunks against the whole: the value, of itself; the gradient, of each of its numbers,
  // and what the smallest may be off by. Of something from itself there is nothing, but for rounding.
  double chunked_loss = 1e-6, chunked_divergence = 1e-5, chunked_gradient = 1e-4, smallest_gradient = 1e-7;
  double no_divergence = 1e-7, no_gradient = 1e-8;
  // The loss with products in bfloat16, of itself, and its gradient, of the whole: 8 bits of each number.
  double loss_bf16 = 2e-3, loss_gradient_bf16 = 0.02;

  // Logits of a small random model in bf16 against float32, of the whole.
  double logits_bf16 = 0.02;
  // Such a model, teacher-forced. bf16 names the likeliest token of float32 wherever that leads by more nats than this,
  // and diverges from it by no more nats on the average.
  double agreement_lead = 0.04, agreement_kl = 8e-4;
  // By how many per cent the perplexity of a random text may differ: of bf16 from float32, of integers from float32 on
  // the same dequantised weights, since rows are rounded further. A scale that is off by 1% moves it by 4 to 20.
  double agreement_percent = 0.6;
};
constexpr Tolerance kTolerance;

} // namespace tenon::test

// The kernels of one tier: what a processor does with one panel, one row or one tile, on one thread. Everything above
// (products, attention, runs of blocks) is the same code for every tier.
//
// Requires (all): pointers to rows of the sizes said; no alignment but where it is said; out overlaps no input unless
// said. Numbers are float32 unless said. Thread: pure functions; any.
#pragma once

#include "kernels/cpu/packed_matrix.hpp"
#include "kernels/cpu/rows.hpp"
#include "kernels/cpu/tier.hpp"

#include <cstddef>
#include <cstdint>

namespace tenon::cpu {

// Rows of one call in the forms that products read; a form that nobody asked for is null.
//   bf16   rounded to bfloat16, an odd row padded with one zero
//   int8   per group of 32: q in [-127, 127], x = q scale; sum of the group's q
struct Activations {
  std::int64_t rows = 0, width = 0;
  const std::uint16_t* bf16 = nullptr; // (rows, even width)
  const std::int8_t* q = nullptr;      // (rows, width)
  const float* scale = nullptr;        // (rows, width / 32)
  const std::int32_t* sum = nullptr;   // (rows, width / 32)

  std::int64_t bf16_stride() const { return width + width % 2; }
  std::int64_t groups() const { return width / kGroup; }
};

// The weights of a panel, and what products may ask memory for: at the end of the panel for what is read next (then, as
// those of AVX-512 do), or bit by bit for as much as the panel holds of what is read after it (after, as those of AVX2
// do). Null, both: what is right behind.
struct Panel {
  const std::byte *at, *then, *after;
  Panel(const std::byte* at, const std::byte* then = nullptr, const std::byte* after = nullptr)
      : at(at), then(then), after(after) {}
};

// A row in two parts is two rows of int8: q, and what rounding left over, in steps kFine times as small. Together they
// are kFine q + q', a number of 16 bits.
constexpr int kFine = 254;

// Numbers below this are zeros to int8: the inverse of their step would overflow.
constexpr float kSmallest = 1e-30f;

// Keys at which a tile's partial softmax begins: attention sums whole chunks, then chunks in order.
constexpr std::int64_t kChunk = 256;
constexpr std::int64_t kTileRows = 48; // queries of a tile at most

// What is read once a tile's scores are weights, from `at` on (null: nothing known). Row `row` of `rows` may ask memory
// for its share of it meanwhile.
struct Behind {
  const std::byte* at = nullptr;
  std::int64_t row = 0, rows = 1;
};

// One chunk of keys against some queries that share it.
struct AttentionTile {
  std::int64_t rows = 0, depth = 0, keys = 0; // rows <= kTileRows, keys <= kChunk
  const float* q = nullptr;                   // (rows, depth), already scaled
  const std::int64_t* visible = nullptr;      // (rows): row r sees the first visible[r] keys of the chunk
  // In float32: row j at k + j * stride.
  const float *k = nullptr, *v = nullptr;
  std::int64_t stride = 0;
  // As panels (key_values.hpp): of keys; of values, of which these are [column, column + depth); in int8 the values'
  // steps, one a key.
  const std::byte *k_panels = nullptr, *v_panels = nullptr;
  const float* v_steps = nullptr;
  const std::byte* next_k_panels = nullptr; // what this thread reads behind these values; null: something else
  std::int64_t column = 0;
  float* scratch = nullptr; // attention_scratch(depth) numbers, aligned to 64
  // Per row: the largest score (-infinity where it sees nothing), the sum of exp(score - largest), and that sum with
  // the values (rows, depth).
  float *largest = nullptr, *sum = nullptr, *out = nullptr;
};
constexpr std::int64_t attention_scratch(std::int64_t depth) { // of either kernel
  return kPanel * depth + kTileRows * (kChunk + kChunk / 2 + kPanel + depth);
}

// One chunk of a head's keys and values on the way back, against the queries from the chunk's first position on: row r
// sees the first r + 1 keys. What is computed is added to d_q, d_k and d_v, in an order that sizes alone decide.
struct AttentionGradientTile {
  std::int64_t rows = 0, depth = 0, keys = 0;     // keys <= kChunk
  std::int64_t heads = 0;                         // log_sum's stride
  std::int64_t q_stride = 0, kv_stride = 0;       // between positions; q_stride also of what is written
  float scale = 0;                                // of scores
  const float *q = nullptr, *d_y = nullptr;       // (rows, depth)
  const float *k = nullptr, *v = nullptr;         // (keys, depth)
  const float *log_sum = nullptr, *dot = nullptr; // (rows): of exp(score), what forward kept; d_y y
  float *d_q = nullptr, *d_k = nullptr, *d_v = nullptr;
  float* scratch = nullptr; // attention_gradient_scratch(depth) numbers, aligned to 64
};
constexpr std::int64_t attention_gradient_scratch(std::int64_t depth) {
  return 2 * kChunk * depth + 2 * kTileRows * kChunk;
}

struct Kernels {
  Tier tier;
  // out[r * stride + lane] = sum over the panel's inputs, for rows [first, first + rows) of x and 64 lanes.
  using Product = void (*)(Panel panel, const Activations& x, std::int64_t first, std::int64_t rows, float* out,
                           std::int64_t stride);
  Product products[kPackedFormats]; // by PackedFormat
  // Of int8, for rows [first, first + rows) in two parts, which are rows 2 r and 2 r + 1 of x. Null: two rows are as
  // fast.
  Product fine_product;
  // To bfloat16, ties to even. Below the smallest normal number a tier may make zero of it, as its products take it.
  void (*round)(const float* x, std::int64_t count, std::uint16_t* out);
  // count: a multiple of 32. A group that holds a number that is not finite has scale NaN, so that it is seen.
  void (*quantise)(const float* x, std::int64_t count, std::int8_t* q, float* scale, std::int32_t* sum);
  // gate = gate / (1 + exp(-gate)) * up. (Shazeer 2020, arXiv 2002.05202, equation 6)
  void (*silu_multiply)(float* gate, const float* up, std::int64_t count);
  // What a gradient d towards silu(gate) * up is towards both. d_gate may be gate's or d's memory, d_up likewise.
  void (*silu_gradient)(const float* gate, const float* up, const float* d, float* d_gate, float* d_up,
                        std::int64_t count);
  // The tanh form. (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2)
  void (*gelu)(float* x, std::int64_t count);
  // y += a * x.
  void (*add_scaled)(float a, const float* x, float* y, std::int64_t count);
  float (*dot)(const float* a, const float* b, std::int64_t count);
  void (*attend)(const AttentionTile& tile);
  void (*attend_gradient)(const AttentionGradientTile& tile);
  // Scores of one row, of which it sees the first `visible`, to exp(score - largest), and their sum; zeros behind them,
  // up to `padded` (a multiple of 64). Meanwhile memory may be asked for what is behind.
  void (*soften)(float* scores, std::int64_t visible, std::int64_t padded, float& largest, float& sum,
                 const Behind& behind);
  float (*largest)(const float* x, std::int64_t count); // -infinity of nothing
  // Places of the numbers above a threshold, ascending; returns how many.
  std::int64_t (*above)(const float* x, std::int64_t count, float threshold, std::int32_t* places);
  // Places of the k largest, the largest first, ties in order of their places; none of -infinity. 0 < k <= count.
  // Returns how many there are.
  std::int64_t (*best)(const float* x, std::int64_t count, std::int64_t k, std::int32_t* places);
  RowKernels rows;

  Product product(PackedFormat format) const { return products[static_cast<std::size_t>(format)]; }
};

// Requires: supported(tier).
const Kernels& kernels_of(Tier tier);

} // namespace tenon::cpu

// A run of transformer blocks on packed weights: a few parallel regions a block, or one or two where every thread has
// rows, or runs, of its own; all memory from one arena. Or several runs at once: those that differ in their
// low-rank changes alone read their weights once for all.
//
//   h += o(attention(rope(norm(q(n))), rope(norm(k(n))), v(n))),  n = norm(h);   h += down(inner(norm(h)))
//
// What the plain operators in kernels/transformer.hpp define, in other rounding.
// Shapes: N rows; C model width; H heads, G key and value heads, D head width. Thread: one call at a time per Arena.
#pragma once

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/product.hpp"

#include <optional>

namespace tenon::cpu {

// With a bias a layer norm, without an RMS norm.
struct Norm {
  const float *weight = nullptr, *bias = nullptr;
};

struct Block {
  Linear q, k, v, o;
  std::optional<Linear> gate; // absent: the feed-forward is down(gelu(up(x)))
  Linear up, down;
  Norm attention_norm, ffn_norm;
  const float *q_norm = nullptr, *k_norm = nullptr; // (D); null: heads are not normalised
};

struct RunShape {
  HeadShape heads;
  double norm_eps = 0, rope_theta = 0; // rope_theta 0: nothing is rotated
  KeyFormat keys = KeyFormat::bf16;    // keys and values are kept in
};

struct RunSpan {
  std::int64_t offset = 0, length = 0, position = 0;
  std::size_t run = 0;     // that these rows go through
  std::int64_t unread = 0; // of the first of these rows nobody reads what comes out; they hold anything then
};

// Where a span's keys and values stand (key_values.hpp): room for past + length positions, the first `past` filled.
struct KeyValues {
  std::int64_t past = 0;
  float *const *k = nullptr, *const *v = nullptr; // one pointer per chunk
};
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;
  // Of this block and span, after room for the span's rows was made; valid until the run ends. Asked once, on the
  // caller's thread. A span has as long a past in every block.
  virtual KeyValues extend(std::int64_t block, std::int64_t span) = 0;
};

// h (N,C), in place. Requires: blocks of one width; runs with the same weights, biases and norms.
void run_blocks(const Engine& engine, Arena& arena, const RunShape& shape, std::span<const std::span<const Block>> runs,
                std::span<const RunSpan> spans, KeyValueStore& store, float* h, std::int64_t rows);
// The same for runs with weights of their own: with a few rows each, every thread may take whole runs. Requires: a
// run's spans follow each other, as do their rows; h holds the rows of spans alone.
void run_apart(const Engine& engine, Arena& arena, const RunShape& shape, std::span<const std::span<const Block>> runs,
               std::span<const RunSpan> spans, KeyValueStore& store, float* h);

} // namespace tenon::cpu

// Causal attention of some rows over their sequences' keys and values, grouped heads sharing theirs.
// Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1; Ainslie et al. 2023 (arXiv 2305.13245).
//
// Scores and sums go chunk by chunk of 256 absolute positions, the chunks' results are joined in order: a position's
// result is the same bits whether it came alone or in a prompt, and no matrix of positions by positions ever exists.
// Shapes: N rows; H heads, G key and value heads, D head width. Thread: one call at a time per Arena.
#pragma once

#include "kernels/cpu/engine.hpp"
#include "kernels/cpu/key_values.hpp"

#include <span>

namespace tenon::cpu {

// Rows [offset, offset + length) of the call, the last positions of a sequence whose keys and values (past + length, G,
// D) are these, in chunks of kChunk positions: one pointer per chunk.
struct AttentionSpan {
  std::int64_t offset = 0, length = 0, past = 0;
  const float *const *k = nullptr, *const *v = nullptr;
  KeyFormat format = KeyFormat::float32;
};

// q, y (N,H,D). Inside a task of the pool, that task does all of it.
void attend(const Engine& engine, Arena& arena, const HeadShape& shape, const float* q,
            std::span<const AttentionSpan> spans, float* y);

// The same as tasks, for who brings his own threads: task i of attention_tasks(shape, span). memory: so many numbers of
// its thread, aligned to 64. log_sum (N,H): takes the logarithm of every softmax's denominator, which gradients ask
// for; null: nobody does.
std::int64_t attention_memory(const HeadShape& shape);
std::int64_t attention_tasks(const HeadShape& shape, const AttentionSpan& span);
void attend_task(const Kernels& kernels, const HeadShape& shape, const float* q, const AttentionSpan& span,
                 std::int64_t task, float* memory, float* y, float* log_sum = nullptr);

// What a gradient d_y towards a whole sequence's attention is towards q, k and v. q, y and everything towards them
// (T,H,D); k, v (T,G,D); log_sum (T,H), as attend_task left it. d_k and d_v are each query head's part of it: what a
// key head gets is the sum over the query heads that share it.
struct AttentionGradient {
  HeadShape shape;
  std::int64_t length = 0;
  const float *q = nullptr, *k = nullptr, *v = nullptr, *y = nullptr, *log_sum = nullptr, *d_y = nullptr;
  float *d_q = nullptr, *d_k = nullptr, *d_v = nullptr;
};
// A task for each head. memory: so many numbers of its thread, aligned to 64.
std::int64_t attention_gradient_memory(const HeadShape& shape, std::int64_t length);
void attention_gradient_task(const Kernels& kernels, const AttentionGradient& of, std::int64_t head, float* memory);

} // namespace tenon::cpu

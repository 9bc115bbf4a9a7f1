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

// q, y (N,H,D). Not inside a task of the pool.
void attend(const Engine& engine, Arena& arena, const HeadShape& shape, const float* q,
            std::span<const AttentionSpan> spans, float* y);

// The same as tasks, for who brings his own threads: task i of attention_tasks(shape, span). memory: so many numbers of
// its thread, aligned to 64.
std::int64_t attention_memory(const HeadShape& shape);
std::int64_t attention_tasks(const HeadShape& shape, const AttentionSpan& span);
void attend_task(const Kernels& kernels, const HeadShape& shape, const float* q, const AttentionSpan& span,
                 std::int64_t task, float* memory, float* y);

} // namespace tenon::cpu

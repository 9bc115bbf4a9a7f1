// A layer of experts for rows that chose a few of them each: rows sorted by expert, their products over one flat space
// of tasks, the results added with their strengths.
//
//   y_t = sum over t's choices of strength * down_e(inner_e(x_t)),  inner_e = silu(gate_e x) * up_e x, or gelu(up_e x)
//
// Source: Shazeer et al. 2017 (arXiv 1701.06538), equation 1; grouping by counting sort as in Gale et al. 2022
// (arXiv 2211.15841). A row's sum is in float32 in the order of its choices: whatever the threads and the rows beside
// it, the same bits. Shapes: N rows; K choices of a row; C inputs and outputs; F inner width.
// Thread: one call at a time per Arena.
#pragma once

#include "kernels/cpu/product.hpp"

#include <optional>

namespace tenon::cpu {

struct FeedForward {
  std::optional<Linear> gate; // absent: down(gelu(up(x)))
  Linear up, down;
};

// Which experts rows chose: row t's choices stand at [t K, (t + 1) K); an expert of -1 is no choice.
struct Choices {
  std::int64_t rows = 0, each = 0;
  const std::int32_t* experts = nullptr;
  const float* strengths = nullptr;
};

// Scores every row and takes the `active` best, whose strengths are a softmax over their scores.
struct MixtureRouter {
  const float* weights_EC = nullptr;
  std::int64_t experts = 0, width = 0, active = 0;
};
// x (N,C). The choices live in the arena, in the order of experts' numbers, then those that are none: of an expert so
// far behind that nothing is left for it. Of a row whose scores are not finite, the strengths are not. Requires: 0 <
// active <= experts.
Choices choose(const Engine& engine, Arena& arena, const MixtureRouter& router, const float* x, std::int64_t rows);

// x, y (N,C). Requires: choices within the experts; experts of one shape, without low-rank changes.
void mix(const Engine& engine, Arena& arena, std::span<const FeedForward> experts, const Choices& choices,
         const float* x, float* y);

} // namespace tenon::cpu

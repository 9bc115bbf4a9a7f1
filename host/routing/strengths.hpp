// From scores to strengths: numbers that say how much each expert counts at each position. They always sum to 1.
// Shapes: N positions, E experts, column 0 the base. Thread: pure functions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tenon {

// softmax(scores / temperature).
at::Tensor softmax_strengths(const at::Tensor& scores_NE, double temperature);

// A softmax over the k best of each row, 0 elsewhere. Ties go to the lower slot. k >= E is the softmax.
at::Tensor top_k_strengths(const at::Tensor& scores_NE, std::int64_t k, double temperature);

// max(scores / temperature - t, 0), and the square of max(scores / (2 temperature) - t, 0), t so that they sum to 1:
// the further behind a score is, the sooner it has none, whatever the number of experts. Sources:
// kernels/cpu/routing.hpp.
at::Tensor sparsemax_strengths(const at::Tensor& scores_NE, double temperature);
at::Tensor entmax_strengths(const at::Tensor& scores_NE, double temperature);

// Moves an expert's strengths to the base: what a masked expert leaves over.
void give_to_base(at::Tensor& strengths_NE, std::int64_t expert);

} // namespace tenon

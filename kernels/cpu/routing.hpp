// From one row's scores to strengths that sum to 1, in one or two passes over the scores: only those that have a share
// are looked at again, so that thousands of experts cost no more than reading their scores.
//
//   top_k      a softmax over the k best
//   sparsemax  max(z - t, 0)          (Martins and Astudillo 2016, arXiv 1602.02068)
//   entmax15   max(z / 2 - t, 0)^2    (Peters et al. 2019, arXiv 1905.05702, alpha 1.5)
//
// z = scores / temperature; t so that the sum is 1. Shapes: E experts. Requires (all): no score is a NaN or infinity
// (-infinity: who is excluded, has no share; not everybody), temperature > 0; experts and strengths have room for as
// many as may have a share: k of top_k, else E. Returns how many have one; they stand in the order of their numbers.
// Ties go to the lower number. Thread: pure functions; any.
#pragma once

#include "kernels/cpu/kernels.hpp"

namespace tenon::cpu {

// k >= E: all.
std::int64_t top_k(const Kernels& kernels, const float* scores, std::int64_t count, std::int64_t k, float temperature,
                   std::int32_t* experts, float* strengths);
std::int64_t sparsemax(const Kernels& kernels, const float* scores, std::int64_t count, float temperature,
                       std::int32_t* experts, float* strengths);
std::int64_t entmax15(const Kernels& kernels, const float* scores, std::int64_t count, float temperature,
                      std::int32_t* experts, float* strengths);

} // namespace tenon::cpu

// From logits to the next token: greedy, or drawn after temperature, top-k and top-p, in that order.
//
//   temperature  logits / temperature; 0 is greedy: the largest logit, the lowest id among equals
//   top_k        the k most likely tokens stay, the lower id first among equals; 0: all
//   top_p        of those, the fewest most likely ones whose probabilities reach top_p stay; at least one; 1: all
//
// The number drawn for token i is element i of the stream (seed, "sample"): nothing else shifts it.
// Thread: a Sampler is immutable; any.
#pragma once

#include "host/model/random.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace tenon {

struct SamplingOptions {
  double temperature = 0.0;
  std::int64_t top_k = 0;
  double top_p = 1.0;
  std::uint64_t seed = 0;
};

struct Choice {
  std::int32_t id = 0;
  double probability = 0;
};

// What may be drawn, most likely first; probabilities sum to 1. Greedy: one candidate.
// Errors: numeric (a logit is NaN or +infinity, or all are -infinity); usage (no logits).
std::vector<Choice> choices(std::span<const float> logits_V, const SamplingOptions& options);

class Sampler {
 public:
  // Errors: usage, naming the option that is out of range.
  explicit Sampler(const SamplingOptions& options);

  // The token number `index` of this generation. Errors: as choices.
  std::int32_t sample(std::span<const float> logits_V, std::uint64_t index) const;
  const SamplingOptions& options() const { return options_; }

 private:
  SamplingOptions options_;
  RandomStream stream_;
};

} // namespace tenon

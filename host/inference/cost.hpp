// What one token costs at least: bytes of weights, keys and values that a step reads, and operations of products and
// attention; the figures that bandwidth and peaks are held against. Norms, routing and everything else that is small is
// left out.
// Thread: pure functions.
#pragma once

#include "host/composition/composition.hpp"
#include "kernels/cpu/probe.hpp"

namespace tenon {

struct Cost {
  double bytes = 0;                       // that are read
  double float32 = 0, bf16 = 0, int8 = 0; // operations of a row, by what their products compute in

  Cost& operator+=(const Cost& other);
  Cost times(double share) const;
  // Seconds at the least; 0 where a limit is not known.
  double reading(const cpu::Limits& limits) const { return limits.read > 0 ? bytes / (1e9 * limits.read) : 0; }
  double computing(const cpu::Limits& limits) const;
};

// Of W (outputs, inputs) against one row, in whatever form its products are computed; nothing for a tensor that is no
// matrix.
Cost cost_of(const at::Tensor& weights);
// One row through trunk and head's layers, and through the unembedding, which a prompt needs for its last position
// only.
Cost layers_cost(const Model& model);
Cost unembedding_cost(const Model& model);
// One row through an expert: the base's own, or what it shares of it, too.
Cost expert_cost(const LoadedExpert& expert);

// A position of its sequence that a row sees: the bytes kept of it, which a step reads, and the operations of scores
// and sums; in trunk and head, and in an expert (of which only runs of blocks tell operations).
Cost seen_cost(const Model& model);
Cost seen_cost(const LoadedExpert& expert);

} // namespace tenon

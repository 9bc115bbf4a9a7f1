// The proof that a cut loses nothing: trunk, middle and head, run one after another, give the uncut model's logits.
#pragma once

#include "host/formats/shards.hpp"
#include "host/model/trunk.hpp"
#include "registry/manifest.hpp"

namespace tenon {

// Logits (T,V) of one sequence from the whole stack of layers, and from the three parts.
at::Tensor uncut_logits(const ModelShape& shape, const WeightSource& weights, const Batch& batch);
at::Tensor rejoined_logits(const ModelShape& shape, const Cut& cut, const WeightSource& weights, const Batch& batch);

// Compares both, bit for bit, over the shard's first tokens. Returns: how many positions. Errors: bug, where they
// differ.
std::int64_t prove_rejoined(const ModelShape& shape, const Cut& cut, const WeightSource& weights, const Shard& text);

} // namespace tenon

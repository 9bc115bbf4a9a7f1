// A cut model whole again: all of its weights by their uncut names, and the proof that a cut loses nothing: trunk,
// middle and head, run one after another, give the uncut model's logits.
#pragma once

#include "host/formats/shards.hpp"
#include "host/model/trunk.hpp"
#include "host/model/weights.hpp"
#include "registry/manifest.hpp"

namespace tenon {

// The layer a weight belongs to, or -1: "blocks.12.attention.q.weight" is 12; and its name in a stack that begins with
// layer `first` of this one.
std::int64_t layer_of(const std::string& name);
std::string name_in_stack(const std::string& name, std::int64_t first);

// ends: of trunk and head; middle: of the layers in the cut, numbered from 0. Borrows both.
WeightSource rejoined_weights(const Weights& ends, const Weights& middle, const Cut& cut);

// Logits (T,V) of one sequence from the whole stack of layers, and from the three parts.
at::Tensor uncut_logits(const ModelShape& shape, const WeightSource& weights, const Batch& batch);
at::Tensor rejoined_logits(const ModelShape& shape, const Cut& cut, const WeightSource& weights, const Batch& batch);

// Compares both, bit for bit, over the shard's first tokens. Returns: how many positions. Errors: bug, where they
// differ.
std::int64_t prove_rejoined(const ModelShape& shape, const Cut& cut, const WeightSource& weights, const Shard& text);

} // namespace tenon

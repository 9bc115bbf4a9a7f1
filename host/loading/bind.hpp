// Step 9 of loading: every tensor an expert asks for gets its memory, strictly. Missing, extra or misshapen tensors are
// refused by name (TN-P20); "base:" tensors are the base's own mapped memory, read-only.
#pragma once

#include "host/loading/native.hpp"
#include "host/model/weights.hpp"
#include "registry/manifest.hpp"

namespace tenon {

// own: the package's weights; base: the base's, for what the expert shares (null for the base itself).
// Errors: integrity, both sides named.
void bind_weights(LoadedExpert& expert, const ExpertManifest& manifest, const Weights* own, const Weights* base);

// What the expert asks for, as a manifest records it: shapes, and "file:<name>" or "base:<name>".
std::vector<WeightRecord> weight_records(const LoadedExpert& expert);

} // namespace tenon

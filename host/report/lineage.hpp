// Where everything in a composition comes from: versions, digests, what each expert was trained on.
// Thread: a pure function.
#pragma once

#include "host/evaluation/evaluate.hpp"
#include "host/report/report.hpp"

namespace tenon {

// The model, the router, each slot in order, then the experts only compared with. Digests are those of the lock, where
// the composition has one.
std::vector<LineageCard> lineage_of(const Composition& composition, const std::vector<VersusExpert>& versus);

} // namespace tenon

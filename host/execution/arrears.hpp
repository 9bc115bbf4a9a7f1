// What experts have missed of a sequence and a merge would first catch up; and doing some of it ahead of the merge, so
// that whoever shares a machine with a long missed span need not wait for all of it.
// Thread: that of the sequence.
#pragma once

#include "host/execution/experts.hpp"

#include <cstdint>
#include <vector>

namespace tenon {

struct Arrears {
  std::size_t slot;
  std::int64_t rows; // positions before those to be merged
};

// Of positions [position, position + T) with strengths w (T,E), already kept in sequence.h: the slots in the order in
// which they are to catch up, the base before whoever stands on it. `token` experts miss nothing, and windows go back
// no further than they are long.
std::vector<Arrears> arrears(const Experts& experts, const Sequence& sequence, std::int64_t position,
                             const at::Tensor& w_TE);

// Runs the slot over the next `rows` positions that its state has not seen. An expert at fault is masked, as in a
// merge. Requires: they are kept in sequence.h. Errors: plugin (a fault, when strict or the base's).
void catch_up(Experts& experts, Sequence& sequence, std::size_t slot, std::int64_t rows);

} // namespace tenon

// One step of several sessions together: all rows in one batch, so that weights are read once for all of them.
//
// An expert chosen after a long absence has much to catch up on. Beyond `catch_up_rows`, which all who owe share
// equally, that work is left to later steps: the session is held, and meanwhile neither reads nor writes. The others go
// on. Packed weights give every session the bits it would have got alone; float32 through LibTorch only nearly. Thread:
// that of the composition.
#pragma once

#include "host/inference/session.hpp"

#include <limits>
#include <span>

namespace tenon {

struct StepPart {
  Session* session;
  std::int64_t rows; // how many of its tokens that were not yet run; 0 where it is held
};

// Afterwards each session has run its rows, and knows its logits where no token is left; or is held.
// Requires: sessions of this composition, each once; rows no more than there are. Errors: those of merge; every session
// of the step is then back at what had been run before.
void step(Composition& composition, std::span<const StepPart> parts,
          std::int64_t catch_up_rows = std::numeric_limits<std::int64_t>::max());

} // namespace tenon

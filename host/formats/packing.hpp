// How dialogues fill blocks of T tokens.
//
// A dialogue stays whole wherever it fits: in the order given, each goes into the first block that has room for it, of
// the last few begun. What room is left is padding, which never counts. A dialogue longer than a block is cut into
// pieces of T; a piece begins without what came before it, so its first token never counts, and a piece in which
// nothing counts is left out. Thread: pure functions.
#pragma once

#include "host/formats/shards.hpp"

namespace tenon {

// Documents in the order of their blocks, padding included: together whole blocks of `length` tokens.
std::vector<MaskedDocument> pack(std::vector<MaskedDocument> dialogues, std::size_t length, std::int32_t padding);

} // namespace tenon

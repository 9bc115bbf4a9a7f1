// How much memory a session's state takes, all experts running. Thread: a value.
#pragma once

#include "host/composition/composition.hpp"

#include <cstdint>

namespace tenon {

struct StateSize {
  std::int64_t block_bytes = 0; // of each kStateBlock positions begun
  std::int64_t fixed_bytes = 0;

  explicit StateSize(const Composition& composition);
  // The largest number there is where they would be more.
  std::uint64_t bytes(std::int64_t positions) const;
};

} // namespace tenon

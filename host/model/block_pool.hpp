// Memory of sequences, in blocks: each holds so many consecutive rows of one buffer, and belongs to all the sequences
// that share them. What nobody holds any more is kept for the next who asks, so that a step in a warm process asks the
// system for nothing. Blocks lie side by side in 2 MiB pages where the system has such and little of a page is left
// over.
//
// Thread: any; a block itself is written by one sequence at a time.
#pragma once

#include "kernels/cpu/pages.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace tenon {

using StateBlock = std::shared_ptr<float>;

class BlockPool : public std::enable_shared_from_this<BlockPool> {
 public:
  static std::shared_ptr<BlockPool> make() { return std::shared_ptr<BlockPool>(new BlockPool); }
  BlockPool(const BlockPool&) = delete;

  // Aligned to 64, contents undefined. Goes back when its last holder lets go; holders keep the pool alive.
  // Errors: std::bad_alloc.
  StateBlock take(std::int64_t floats);

  std::int64_t used_bytes() const; // of blocks that somebody holds
  std::int64_t peak_bytes() const; // the most that was ever used at once

 private:
  struct Free {
    void operator()(float* memory) const;
  };
  BlockPool() = default;
  void add(std::int64_t floats, std::vector<float*>& blocks);
  void give_back(float* memory, std::int64_t floats);

  mutable std::mutex mutex_;
  std::deque<cpu::HugeMemory> pages_;                // of several blocks,
  std::vector<std::unique_ptr<float, Free>> alone_;  // and blocks beside them
  std::map<std::int64_t, std::vector<float*>> free_; // by size
  std::int64_t used_bytes_ = 0, peak_bytes_ = 0;
};

} // namespace tenon

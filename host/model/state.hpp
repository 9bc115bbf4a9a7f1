// What the host remembers of a sequence: state of trunk, head and experts, and the rows that experts receive.
//
// A module never owns its memory between calls: the host keeps it, so that a sequence can be forked, cut back, saved
// and dropped whoever wrote the expert. Rows of positions lie in blocks that forks share until one of them writes; what
// a sequence's last holder lets go of is free again. State is moved or forked, never copied: a copy would write into
// the tensors of its original. Kept rows make sparse execution exact: an expert that was not chosen for a while is run
// over the rows it missed. Thread: one forward call at a time per sequence; different sequences are independent.
#pragma once

#include "host/model/block_pool.hpp"
#include "kernels/sequence_state.hpp"

#include <string>
#include <vector>

namespace tenon {

struct StateTensor {
  std::string name;
  bool per_position = false;
  std::vector<std::int64_t> shape;
};
using ModuleLayout = std::vector<StateTensor>;

// Rows that grow at the end: (length, ...), float32, in blocks of kStateBlock rows, row by row or in a kernel's form.
class RowBuffer {
 public:
  explicit RowBuffer(std::shared_ptr<BlockPool> pool = BlockPool::make()) : pool_(std::move(pool)) {}
  RowBuffer(RowBuffer&&) = default;
  RowBuffer& operator=(RowBuffer&&) = default;

  std::int64_t length() const { return length_; }
  // Requires (both): rows of one shape.
  void append(const at::Tensor& rows);
  // shape: of a row. Returns all blocks.
  float* const* extend(std::int64_t count, const std::vector<std::int64_t>& shape,
                       const std::shared_ptr<const RowForm>& form = {});
  // A view where one block holds them all row by row, else a copy. What is appended later does not change it.
  at::Tensor rows(std::int64_t first, std::int64_t last) const;
  void truncate(std::int64_t length);
  RowBuffer fork() const; // independent, sharing what both hold

 private:
  at::Tensor view(std::int64_t block, std::int64_t first, std::int64_t last) const;
  void grow(std::int64_t count);
  void own_last();

  std::shared_ptr<BlockPool> pool_;
  std::shared_ptr<const RowForm> form_; // null: row by row
  std::vector<std::int64_t> shape_;
  std::int64_t width_ = 0, length_ = 0; // numbers that a row takes; rows
  std::vector<StateBlock> blocks_;
  std::vector<float*> starts_; // of blocks_
};

// One module's state for one sequence.
class ModuleState : public SequenceState {
 public:
  ModuleState() = default;
  explicit ModuleState(const ModuleLayout& layout, const std::shared_ptr<BlockPool>& pool = BlockPool::make());
  ModuleState(ModuleState&&) = default;
  ModuleState& operator=(ModuleState&&) = default;

  // Errors (all): plugin (no such slot in that form; rows of another shape), which the boundary makes a status of.
  at::Tensor fixed(std::int64_t slot) override;
  void append(std::int64_t slot, const at::Tensor& rows) override;
  at::Tensor rows(std::int64_t slot) const override;
  Extended extend(std::int64_t slot, std::int64_t count, std::int64_t width,
                  const std::shared_ptr<const RowForm>& form = {}) override;

  // Positions [first, done) have been run, none before first: a module whose outputs look only a window back may be
  // restarted behind a gap.
  std::int64_t first() const { return first_; }
  std::int64_t done() const { return done_; }
  void advance(std::int64_t count) { done_ += count; }
  // As new, and as if the sequence began at this position.
  void restart(std::int64_t position);
  // Back to `length` positions. A module with fixed tensors cannot go back: it starts again from nothing, and is caught
  // up from the kept rows.
  void truncate(std::int64_t length);
  // After a call that failed half-way: whatever it left behind is dropped, and will be caught up.
  void undo_failed();
  ModuleState fork() const;
  bool has_fixed() const;

  // For who saves it. values: one per slot, the rows of [first, done) or the fixed tensor. Requires: shapes as the
  // layout says.
  std::size_t slots() const { return slots_.size(); }
  const StateTensor& spec(std::size_t slot) const { return slots_[slot].spec; }
  at::Tensor value(std::size_t slot) const;
  void restore(std::int64_t first, std::int64_t done, const std::vector<at::Tensor>& values);

 private:
  struct Slot {
    StateTensor spec;
    at::Tensor value; // fixed
    RowBuffer rows;   // per position
  };
  Slot& slot(std::int64_t index, bool per_position);
  std::vector<Slot> slots_;
  std::int64_t first_ = 0, done_ = 0;
};

// What a routing policy remembers of a sequence.
struct PolicyState {
  struct Kept {
    std::int64_t position;           // from here on
    std::vector<std::int64_t> slots; // ascending
  };
  std::vector<Kept> kept; // sticky: every change of the kept set, ascending positions
  at::Tensor fixed_E;     // sequence: the strengths once they are decided; undefined before. Never written in place
  // token and sticky over several positions: a position's own scores, of those [scored - R, scored). Whoever goes on
  // elsewhere computes them again from h. Shared by forks: never written in place.
  at::Tensor scores_RE;
  std::int64_t scored = 0;

  void truncate(std::int64_t length);
};

// A sequence in a composition: experts[0] is the base's state.
struct Sequence {
  ModuleState trunk, head;
  std::vector<ModuleState> experts;
  RowBuffer h, base; // the trunk's outputs, and the base's as far as they were needed, in what experts receive
  PolicyState policy = {};
  std::vector<bool> excluded = {}; // slots that take no part in this sequence's routing; empty: none

  std::int64_t length() const { return h.length(); }
  Sequence fork() const;
  void truncate(std::int64_t length);
};

} // namespace tenon

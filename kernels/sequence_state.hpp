// What a kernel sees of one sequence's state. The host implements it; a tenon_state* at the plugin boundary is one.
// Thread: one forward call at a time per sequence.
#pragma once

#include <ATen/core/Tensor.h>
#include <tenon/plugin.h>

#include <cstdint>
#include <memory>

namespace tenon {

// Rows of a state lie in blocks of so many positions: what sequences have in common is held once.
inline constexpr std::int64_t kStateBlock = 256;

// How rows are kept where a kernel wants them otherwise than row by row. A position may lie all over its block: whoever
// copies a block copies it whole. Rows that come back are what was kept, and are kept again with the same bits.
// Thread: immutable; any.
class RowForm {
 public:
  virtual ~RowForm() = default;
  virtual std::int64_t width() const = 0; // numbers' memory that a position takes of a block
  // Positions [first, first + count); rows float32, row-major.
  virtual void put(const float* rows, std::int64_t first, std::int64_t count, float* const* blocks) const = 0;
  virtual void get(float* rows, std::int64_t first, std::int64_t count, const float* const* blocks) const = 0;
};

class SequenceState {
 public:
  virtual ~SequenceState() = default;

  virtual at::Tensor fixed(std::int64_t slot) = 0;                    // read and written in place
  virtual void append(std::int64_t slot, const at::Tensor& rows) = 0; // (n, ...) after those already there
  virtual at::Tensor rows(std::int64_t slot) const = 0;               // (length, ...); a copy where blocks are several
  // As append, for who writes the new rows himself: `count` rows of `width` numbers follow the `before` already there.
  // From here on rows are kept in this form; null: row by row.
  struct Extended {
    float* const* blocks; // row i at blocks[i / kStateBlock] + i % kStateBlock * width, or as its form says; valid
                          // until the next append
    std::int64_t before;
  };
  virtual Extended extend(std::int64_t slot, std::int64_t count, std::int64_t width,
                          const std::shared_ptr<const RowForm>& form = {}) = 0;
};

inline tenon_state* to_handle(SequenceState* state) { return reinterpret_cast<tenon_state*>(state); }
inline SequenceState* from_handle(tenon_state* handle) { return reinterpret_cast<SequenceState*>(handle); }

} // namespace tenon

// The positions of one forward call: rows of several sequences, packed.
#pragma once

#include "host/model/state.hpp"

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

namespace tenon {

// Rows [offset, offset + length) continue one sequence at `position`. sequence: null in training and scoring, where the
// rows are a whole sequence from position 0; otherwise borrowed for the call.
struct BatchRows {
  std::int64_t offset = 0, length = 0, position = 0;
  Sequence* sequence = nullptr;
  std::int64_t unread = 0; // of its first rows nobody reads the head's output, which is anything then
};

struct Batch {
  at::Tensor tokens_N; // int64
  std::vector<BatchRows> rows;

  std::int64_t size() const { return tokens_N.size(0); }

  // Whole sequences of equal length, without state: (B,T) int64.
  static Batch whole(const at::Tensor& tokens_BT);
  // The next tokens of one sequence.
  static Batch next(Sequence& sequence, std::span<const std::int32_t> tokens);

  // The spans as a module sees them; state(sequence) names the module's own.
  template <class Select>
  std::vector<tenon_span> spans(Select&& state) const {
    std::vector<tenon_span> out;
    out.reserve(rows.size());
    for (const BatchRows& row : rows)
      out.push_back({row.offset, row.length, row.position, row.sequence ? to_handle(&state(*row.sequence)) : nullptr});
    return out;
  }
};

} // namespace tenon

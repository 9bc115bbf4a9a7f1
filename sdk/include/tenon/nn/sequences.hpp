// Sequences packed into one call, as blocks with a memory meet them: all at once in training, step by step in
// inference.
//
// Thread: values; used inside one forward call, whose spans and states they borrow.
#pragma once

#include <tenon/expert.hpp>

#include <algorithm>

namespace tenon::nn {

// Rows x (N,...) as (B,T,...). Errors: Failure unless the spans are whole sequences of one length, without state.
inline Tensor batched(const Tensor& x, c10::ArrayRef<Span> spans) {
  const std::int64_t length = spans.at(0).length;
  for (const Span& span : spans)
    if (span.length != length || span.state || span.position != 0)
      throw Failure(TENON_BAD_ARGUMENT, "training takes whole sequences of one length, without state");
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape[0] = length;
  shape.insert(shape.begin(), static_cast<std::int64_t>(spans.size()));
  return x.view(shape);
}

// Step t is the t-th row of every sequence that has one. Longest first, so those still running are the first so many.
// Shapes: N rows of the call, S sequences, R those running.
class Steps {
 public:
  explicit Steps(c10::ArrayRef<Span> spans) : spans_(spans.vec()) {
    std::stable_sort(spans_.begin(), spans_.end(), [](const Span& a, const Span& b) { return a.length > b.length; });
  }

  std::int64_t count() const { return spans_.empty() ? 0 : spans_[0].length; }

  std::int64_t running(std::int64_t t) const {
    const auto ended = [t](const Span& span) { return span.length <= t; };
    return std::find_if(spans_.begin(), spans_.end(), ended) - spans_.begin();
  }

  // x (N,...) -> (R,...).
  Tensor take(const Tensor& x_N, std::int64_t t) const {
    return running(t) == 1 ? x_N.narrow(0, spans_[0].offset + t, 1) : x_N.index_select(0, rows(t));
  }

  // The inverse: value (R,...) becomes step t of y (N,...).
  void put(Tensor& y_N, std::int64_t t, const Tensor& value_R) const {
    if (running(t) == 1)
      y_N.narrow(0, spans_[0].offset + t, 1).copy_(value_R);
    else
      y_N.index_copy_(0, rows(t), value_R);
  }

  // What the sequences remember in this fixed slot, (S, shape...): zero without state. A copy.
  Tensor recall(std::uint32_t slot, at::IntArrayRef shape, const at::TensorOptions& options) const {
    std::vector<Tensor> values;
    for (const Span& span : spans_) {
      const State state(span.state);
      values.push_back(state ? state.fixed(slot) : at::zeros(shape, options));
    }
    return at::stack(values);
  }

  void remember(std::uint32_t slot, const Tensor& value_S) const {
    for (std::size_t i = 0; i < spans_.size(); ++i)
      if (const State state(spans_[i].state); state) state.fixed(slot).copy_(value_S[static_cast<std::int64_t>(i)]);
  }

 private:
  Tensor rows(std::int64_t t) const {
    Tensor rows_R = at::empty({running(t)}, at::kLong);
    for (std::int64_t i = 0; i < rows_R.size(0); ++i)
      rows_R.data_ptr<std::int64_t>()[i] = spans_[static_cast<std::size_t>(i)].offset + t;
    return rows_R;
  }

  std::vector<Span> spans_;
};

} // namespace tenon::nn

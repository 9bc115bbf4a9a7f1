// The experts of a composition while it runs: slot 0 the base, then the others in order.
//
// An expert that throws, or returns the wrong shape or something not finite, is masked from then on: one line is said,
// its strengths go to the base. With strict set the fault ends the call instead.
// Thread: one forward call at a time.
#pragma once

#include "host/loading/native.hpp"
#include "registry/base/error.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tenon {

// How much expert work was asked for densely (every position), and how much was done. Positions run again after a
// sequence was cut back count again, so that `skipped` may fall below 0.
struct Work {
  std::int64_t dense_rows = 0, run_rows = 0;
  double skipped() const {
    return dense_rows ? 1.0 - static_cast<double>(run_rows) / static_cast<double>(dense_rows) : 0.0;
  }
  Work& operator+=(const Work& other) {
    dense_rows += other.dense_rows;
    run_rows += other.run_rows;
    return *this;
  }
};

class Experts {
 public:
  using Say = std::function<void(const std::string& line)>;

  // Requires: at least the base.
  explicit Experts(std::vector<std::shared_ptr<LoadedExpert>> slots, bool strict = false, Say say = {});

  std::size_t size() const { return slots_.size(); }
  LoadedExpert& operator[](std::size_t slot) const { return *slots_[slot]; }
  bool masked(std::size_t slot) const { return masked_[slot]; }
  // This expert is the base's run of blocks on the base's own packed weights, with changes of low rank.
  bool runs_with_base(std::size_t slot) const;
  // Some expert stands on the base's output, so the base's outputs are kept per sequence.
  bool keep_base() const { return keep_base_; }

  // Errors: the fault itself, if strict or if the base is at fault.
  void fault(std::size_t slot, const Error& error);

  // Of all experts together.
  Work total_work() const;

  std::vector<Work> work; // of each slot, since loading
  // The most rows of sequences that one call of an expert gets, so that a long missed span is never held as a whole.
  std::int64_t rows_at_once = 512;

 private:
  std::vector<std::shared_ptr<LoadedExpert>> slots_;
  std::vector<bool> masked_;
  bool strict_, keep_base_ = false;
  Say say_;
};

} // namespace tenon

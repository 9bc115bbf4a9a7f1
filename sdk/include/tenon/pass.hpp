// tenon::PassExpert: what the author of an expert derives from that learns in one pass over its text, with no gradient
// steps; its facts say "learns": "pass" and "uses": ["base.output"]. E(h) = base + correction(h), and the host tells,
// once per position, in which direction the base's output should have moved. "tenon.pass/1" in C; TENON_PLUGIN makes
// it.
//
// Order: begin, observe any number of times, finish, scale. Parameters keep the shapes of the constructor: a size that
// only the pass can know is a capacity in the configuration and a count among the parameters. The same seed and
// observations give the same bytes. Thread: one call at a time per expert; no gradient is recorded.
#pragma once

#include <tenon/expert.hpp>

namespace tenon {

// N positions of one sequence, in order, its first and last left out. Borrowed for the call: clone what is kept.
struct Observation {
  Tensor h_NC;    // residual stream at the lower cut
  Tensor base_NC; // what the base says
  Tensor
      gradient_NC; // of the sequence's summed next-token loss (nats) towards the middle's output, at the base's; finite
  Tensor targets_N; // int64: the token that follows
};

class PassExpert : public Expert {
 public:
  using Expert::Expert;

  // Forgets everything; then `positions` rows follow, in all.
  virtual void begin(std::uint64_t seed, std::int64_t positions) = 0;
  virtual void observe(const Observation& seen) = 0;
  // The parameters now hold what was learnt.
  virtual void finish() = 0;
  // Multiplies the correction: the host finds the step length on held-back text.
  virtual void scale(double factor) = 0;
};

} // namespace tenon

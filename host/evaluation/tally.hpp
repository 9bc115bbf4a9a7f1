// What one corpus adds up to, batch after batch. Shapes: A arms, B sequences, T-1 predictions each, E experts.
// Thread: one.
#pragma once

#include "host/evaluation/arms.hpp"
#include "host/evaluation/scores.hpp"
#include "host/formats/tokenizer.hpp"

#include <span>
#include <string>
#include <vector>

namespace tenon {

// What of a batch's blocks counts.
struct Counted {
  at::Tensor next_BT;             // (B,T-1) double: 1 where the next token counts for the loss, 0 where not
  std::vector<std::int64_t> text; // of each block, the positions before its padding
};

class Tally {
 public:
  // experts: of the composition, by slot. shown: blocks kept token by token.
  Tally(std::vector<std::string> experts, std::vector<std::size_t> shown);

  // The losses of each arm, (B,T-1) double, in the same order in every batch; and which blocks the batch holds.
  void add(const Batch& batch, std::span<const std::size_t> blocks, const Counted& counted,
           const std::vector<Arm>& arms, const std::vector<at::Tensor>& nll_BT, const Tokenizer& tokenizer);
  // Errors: numeric (a score that is not finite).
  void finish(CorpusScore& score);

 private:
  // Of the base and each of the composition's experts alone.
  std::vector<std::size_t> singles(const std::vector<std::string>& arms) const;
  void add_blocks(const std::string& arm, const at::Tensor& nll_BT, const Counted& counted);
  void add_loads(const at::Tensor& w_NE, const Batch& batch, const Counted& counted);
  void add_oracles(CorpusScore& score) const;

  std::vector<std::string> experts_;
  std::vector<std::size_t> shown_;
  std::vector<ArmScore> arms_;
  std::vector<double> strength_;
  std::vector<std::int64_t> strongest_;
  std::vector<Passage> passages_;
  std::int64_t positions_ = 0, tokens_ = 0;
};

// a - b, pair by pair. Requires: equal sizes.
Estimate paired_estimate(std::span<const double> a, std::span<const double> b);

} // namespace tenon

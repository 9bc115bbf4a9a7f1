// From ways of mixing to losses, with as few passes of the head as that takes.
//
// Ways of mixing that give a sequence the same numbers are scored once, and sequences of all of them go through the
// head together. Shapes: N rows of the batch, C width, V vocabulary, P predictions of the batch, sequence by sequence.
// Thread: one.
#pragma once

#include "host/model/batch.hpp"
#include "host/model/trunk.hpp"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace tenon {

class Scorer {
 public:
  // Whole sequences. first: of each, the position whose prediction counts first; the last one predicts nothing.
  // Borrows the head.
  Scorer(const Head& head, Batch batch, std::vector<std::int64_t> first);
  // Every position of every sequence counts.
  Scorer(const Head& head, Batch batch);

  // -log p(next token) of every prediction, (P) double, for each of the mixes m_NC.
  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& mixes_NC) const;

  std::int64_t passes() const { return passes_; } // sequences that went through the head so far

 private:
  struct Job;
  std::vector<Job> jobs(const std::vector<at::Tensor>& mixes_NC) const;
  at::Tensor score(const std::vector<const Job*>& some) const;
  std::int64_t predictions(std::size_t sequence) const { return batch_.rows[sequence].length - 1 - first_[sequence]; }

  const Head& head_;
  Batch batch_;
  std::vector<std::int64_t> first_, offset_; // offset_: of each sequence's predictions in (P); then P
  mutable std::int64_t passes_ = 0;
};

// Of one mix of whole sequences of one length: (B,T-1) double.
at::Tensor next_token_nll(const Head& head, const at::Tensor& m_NC, const Batch& batch);

} // namespace tenon

// The router: reads h at the trunk's end and gives strengths, which skip over the middle.
//
//   n(h) = (h - mu) / sigma;  score_i = r_i . n(h) + b_i;  score_base = the prior;  strengths = sparsify(scores / tau)
//
// Rows are fitted apart, as calibrated log-odds against general text, so that they compose by concatenation: adding one
// changes no bit of another. Position 0 takes the base; how strengths go along a sequence is the policy's (policy.hpp).
// Thread: immutable; any. A sequence's policy state is written by one call at a time.
#pragma once

#include "host/model/batch.hpp"
#include "registry/lock.hpp"

#include <ATen/core/Tensor.h>

#include <vector>

namespace tenon {

// Mean and deviation of h per channel over general text.
struct Normalization {
  at::Tensor mean_C, deviation_C;
  at::Tensor apply(const at::Tensor& h_NC) const;
};

// An expert's own part of the router.
struct Row {
  at::Tensor r_C;
  double b = 0.0;
};

// (N,E) each, float32. scores: each position's own.
struct Routed {
  at::Tensor scores_NE, strengths_NE;
};

class Router {
 public:
  // rows: those of slots 1, 2, ...; the base has none. Errors: incompatible (strengths or policy this host lacks, or
  // that do not go together).
  Router(Normalization normalization, const std::vector<Row>& rows, Routing routing, double prior);

  // (N,E); column 0 is the prior. Each is summed in one order, so that neither other rows nor the batch-mates change
  // it.
  at::Tensor scores(const at::Tensor& h_NC) const;
  // Requires: where rows have a sequence, h is already kept in sequence->h; its policy state goes on, and is this
  // router's alone.
  Routed route(const at::Tensor& h_NC, const Batch& batch) const;
  at::Tensor strengths(const at::Tensor& h_NC, const Batch& batch) const;
  at::Tensor sparsify(const at::Tensor& scores_NE) const; // each position for itself

  const Routing& routing() const { return routing_; }
  const Normalization& normalization() const { return normalization_; }
  double prior() const { return prior_; }
  std::int64_t experts() const { return r_EC_.size(0) + 1; }

 private:
  void score(const at::Tensor& h_NC, float* scores_NE) const; // by all threads
  // Of the last `count` positions before these rows: a token costs one row's scores, not average_over.
  void scores_before(const BatchRows& rows, std::int64_t count, float* scores_TE) const;
  // Scores of these rows as the policy reads them: averaged over positions before them too; what the sequence excludes
  // at minus infinity.
  at::Tensor averaged(const at::Tensor& scores_TE, const BatchRows& rows) const;
  void decide_sequence(const at::Tensor& h_TC, const BatchRows& rows, float* w_TE) const;

  Normalization normalization_;
  at::Tensor r_EC_, b_E_; // without the base
  Routing routing_;
  double prior_;
};

// The least prior >= 0 that gives the base this mean strength; scores_NE: of held-out general text, as the policy reads
// them, column 0 zero.
double fit_prior(const at::Tensor& scores_NE, const Router& router, double base_share = 0.9);

} // namespace tenon

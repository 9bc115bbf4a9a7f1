// The row of an expert, fitted as calibrated log-odds: is this position of the expert's text, or of general text?
//
// Why not by the language-model loss: that loss fixes no scale, longer training sharpens such rows, and rows made by
// strangers would not compose by concatenation. Token-level logistic regression, one class against the other at even
// odds, with the model's fixed L2, does. Deterministic. Shapes: N positions, C width. Thread: pure functions.
#pragma once

#include "host/routing/router.hpp"

#include <ATen/core/Tensor.h>

namespace tenon {

struct RowFit {
  Row row;
  double loss = 0.0;     // mean cross-entropy in nats, both classes weighing one half
  double accuracy = 0.0; // on what it was fitted to, both classes weighing one half
  double gradient = 0.0; // largest component left
  std::int64_t iterations = 0;
};

// n_domain_NC, n_general_NC: n(h). Minimises mean log-loss + l2 |r|^2 by L-BFGS in float64; b is not penalised.
// Errors: numeric (not finite), usage (a class without positions).
RowFit fit_row(const at::Tensor& n_domain_NC, const at::Tensor& n_general_NC, double l2);

} // namespace tenon

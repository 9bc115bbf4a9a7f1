// Learning in one pass: an expert whose architecture says "learns": "pass" sees, for every position of its text, the
// direction in which the base's output should have moved, and makes of it what it can, with no gradient steps.
//
// That direction is the negative gradient of the sequence's next-token loss towards the middle's output, at the base's:
// one step of functional gradient descent (Friedman 2001, Greedy function approximation, algorithm 1), the expert being
// the regressor. How far to step is one number, found on blocks that were kept back from the pass. Deterministic.
// Thread: one.
#pragma once

#include "host/training/hooks.hpp"
#include "host/training/losses.hpp"
#include "host/training/plan.hpp"
#include "host/training/streams.hpp"
#include "host/training/subject.hpp"

#include <functional>

namespace tenon {

struct PassReport {
  std::int64_t positions = 0;         // observed
  double step_length = 0.0;           // 0: no step lowered the loss
  double base_loss = 0.0, loss = 0.0; // nats a token on what was held back, before and after
};

// The gradient of the summed next-token loss of one block, at the positions scored_K, towards its middle output (T,C),
// at the base's. Its last row is zero: nothing follows it. Errors: numeric (not finite).
at::Tensor correction_gradient(const Model& model, const VocabularyLoss& loss, const at::Tensor& tokens_T,
                               const at::Tensor& base_TC, const at::Tensor& scored_K);

struct StepLength {
  double step = 0.0, loss = 0.0;
};
// The step >= 0 with the lowest loss(step) on a line: doubling or halving from `first` until it is between two others,
// then golden section on its logarithm. at_zero: loss(0); step 0 where nothing is below it.
StepLength search_step(const std::function<double(double)>& loss, double at_zero, double first);

// The first plan.pass.held_back_blocks of the streams are held back, the others observed. Leaves the expert with what
// it learnt, scaled. Errors: plugin, numeric, interrupted (nothing of a pass is kept), usage (too few blocks).
PassReport learn_in_a_pass(const TrainingPlan& plan, const Subject& subject, const Streams& domain,
                           const TrainingHooks& hooks);

} // namespace tenon

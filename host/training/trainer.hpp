// The steps of a training: an expert beside its frozen base, over cached outputs of trunk and base.
//
// A step is on the expert's own text (next-token loss over what counts, half of the sequences with the expert alone,
// half in the mixture with the base at w = sigma(r.n(h) + b)), or, one in so many, on general text (KL of the mixture
// from the base).
// Position 0 is the base's. What a step does is a pure function of its number, the parameters and the streams.
// Thread: one.
#pragma once

#include "host/routing/router.hpp"
#include "host/training/losses.hpp"
#include "host/training/optimizer.hpp"
#include "host/training/plan.hpp"
#include "host/training/streams.hpp"
#include "host/training/subject.hpp"

#include <functional>
#include <optional>
#include <string>

namespace tenon {

// sigma(r . n(h) + b) per row, 0 at position 0 of each sequence. Shape (N). Gradient flows to r and b where they want
// it.
at::Tensor mixture_strengths(const at::Tensor& n_NC, const at::Tensor& r_C, const at::Tensor& b_1, std::int64_t length);
// w y + (1 - w) base.
at::Tensor mix(const at::Tensor& y_NC, const at::Tensor& base_NC, const at::Tensor& w_N);

struct StepReport {
  std::int64_t step = 0;
  bool general = false;
  double loss = 0.0;
  std::optional<double> alone, mixture, divergence; // parts of it, where the step had them
  double learning_rate = 0.0, gradient_norm = 0.0;
  std::int64_t tokens = 0;
  std::vector<std::uint32_t> blocks; // of the text, in the order used
};

class Trainer {
 public:
  // general may hold no blocks where the plan has no general steps. The expert is left ready for training.
  Trainer(const TrainingPlan& plan, const Subject& subject, Streams domain, std::optional<Streams> general, Row row);

  // Step `step`, from 0. Errors: numeric (not finite; the parameters are then as they were), plugin.
  StepReport step(std::int64_t step);

  Row row() const;
  // Everything a checkpoint holds.
  NamedTensors tensors() const;

 private:
  struct Micro { // one batch
    at::Tensor tokens_BT, h_NC, base_NC, alone_B;
    at::Tensor scored_K; // rows of N whose next token counts for the loss
    std::vector<std::uint32_t> blocks;
  };
  Micro domain_batch(std::int64_t first) const;
  Micro general_batch(std::int64_t first) const;
  Micro gather(const Streams& streams, const std::vector<std::int64_t>& blocks) const;
  at::Tensor middle(const Micro& micro, const Batch& batch) const;
  std::int64_t scored_in_step(std::int64_t first) const; // positions of a step on the expert's own text
  void domain_loss(const Micro& micro, double share, StepReport& report);
  void general_loss(const Micro& micro, StepReport& report);
  void backward(const at::Tensor& loss);
  void average_gradients();
  void update(StepReport& report);

  const TrainingPlan& plan_;
  const Subject& subject_;
  Streams domain_;
  std::optional<Streams> general_;
  Normalization normalization_;
  at::Tensor r_C_, b_1_;
  Head head_; // in bfloat16 where products are: converted once, not in every step
  VocabularyLoss loss_;
  AdamW optimizer_;
  std::optional<AdamW> row_optimizer_;
};

} // namespace tenon

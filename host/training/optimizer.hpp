// AdamW, its schedule, and clipping.
// Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2. The state can be saved and gives the same bits
// when it goes on. Thread: one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tenon {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Linear warm-up over `warmup` steps, then a cosine down to `floor` of the full rate. step counts from 0.
double schedule(std::int64_t step, std::int64_t steps, std::int64_t warmup, double floor);

// The norm of all gradients together; those not defined count as zero.
double gradient_norm(const NamedTensors& parameters);
// Scales every gradient by max_norm / norm where norm > max_norm > 0.
void clip_gradients(const NamedTensors& parameters, double norm, double max_norm);

class AdamW {
 public:
  // parameters: leaves, contiguous float32; their gradients are read at each step.
  AdamW(NamedTensors parameters, double weight_decay, double beta1 = 0.9, double beta2 = 0.999, double eps = 1e-8);

  // One update from the gradients there are. number: of this update, from 1.
  void step(std::int64_t number, double learning_rate);
  void clear_gradients();

  const NamedTensors& parameters() const { return parameters_; }
  // "m/<name>" and "v/<name>": to be saved, or filled by whoever goes on.
  NamedTensors state() const;

 private:
  NamedTensors parameters_;
  std::vector<at::Tensor> first_, second_; // moments
  double weight_decay_, beta1_, beta2_, eps_;
};

} // namespace tenon

// The ways of mixing that an evaluation compares, and what mixing costs.
// Shapes: N rows of the batch, E experts with the base, C width, V vocabulary. Thread: pure functions of their
// arguments.
#pragma once

#include "host/composition/composition.hpp"

#include <string>
#include <vector>

namespace tenon {

struct Arm {
  std::string name;
  std::vector<at::Tensor> strengths_NE; // several only for "random"
};

struct ArmOptions {
  std::int64_t random_rows = 3;
  std::uint64_t seed = 0;
  bool removals = true;
};

// Every arm's strengths for these rows; position 0 takes the base in each. A composition without experts has base and
// composed alone.
std::vector<Arm> make_arms(const Composition& composition, const at::Tensor& h_NC, const Batch& batch,
                           const ArmOptions& options);

// Every expert's output at every row. An expert at fault is masked, and its outputs are the base's. Errors: plugin
// (strict).
std::vector<at::Tensor> dense_outputs(Experts& experts, const at::Tensor& h_NC, const Batch& batch);

// What merge() gives for these strengths, from outputs already there.
at::Tensor mix(const at::Tensor& w_NE, const std::vector<at::Tensor>& outputs_NC);

// What merge() would have run for these strengths, whole sequences without state.
Work sparse_work(const at::Tensor& w_NE, const Experts& experts, const Batch& batch);

// -log p(next token) of each sequence's rows but its last, (B,T-1) double, for whole sequences of one length. Logits
// are made for `chunk` rows at a time.
at::Tensor next_token_nll(const Head& head, const at::Tensor& m_NC, const Batch& batch, std::int64_t chunk = 128);

} // namespace tenon

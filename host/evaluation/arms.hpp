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
  bool uniform = true, removals = true;
  std::vector<std::string> versus = {}; // experts only compared with: each has a column after the composition's
};

// Every arm's strengths for these rows; position 0 takes the base in each. base, composed, alone:NAME for each expert;
// then, where the composition has experts, the others that are asked for. Columns at the end that are zero throughout
// may be left out.
std::vector<Arm> make_arms(const Composition& composition, const at::Tensor& h_NC, const Batch& batch,
                           const ArmOptions& options);

using LoadedExperts = std::vector<std::shared_ptr<LoadedExpert>>;

// Every expert's output at every row; then those of the experts only compared with. A composition's expert at fault is
// masked, and its outputs are the base's. Errors: plugin (strict; any fault of one compared with).
std::vector<at::Tensor> dense_outputs(Experts& experts, const at::Tensor& h_NC, const Batch& batch,
                                      const LoadedExperts& versus = {});

// What merge() gives for these strengths, from outputs already there.
at::Tensor mix(const at::Tensor& w_NE, const std::vector<at::Tensor>& outputs_NC);

// What merge() would have run for these strengths, whole sequences without state.
Work sparse_work(const at::Tensor& w_NE, const Experts& experts, const Batch& batch);

} // namespace tenon

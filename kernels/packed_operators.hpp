// linear, mixture and run_blocks of kernels/transformer.hpp, by our own kernels on packed weights.
// Thread: any; a sequence's state is used by one call at a time.
#pragma once

#include "kernels/transformer.hpp"

namespace tenon {

// Requires: packed.form.
at::Tensor packed_linear(const at::Tensor& x_NC, const PackedLinear& packed);

// Features (N,C) times an unembedding (V,C). With integers features are taken in two parts: nothing comes after logits
// that would level out what rounding does to them, and weights are read once for both.
at::Tensor logits_of(const at::Tensor& features_NC, const BoundMatrix& unembedding_VC);

// Fills in what the kernels read of the experts, where every weight has a packed form.
void pack_kernels(PackedMixture& mixture);
// Scores are float32, in one order of summation. Requires: packed.kernels.
at::Tensor packed_mixture(const at::Tensor& x_NC, const PackedMixture& packed);

// Rows ids (N) of a table (V,C): from its packed form where that loses nothing, so that nobody reads the float32 one.
// Throws std::out_of_range.
at::Tensor looked_up_rows(const BoundMatrix& table, const at::Tensor& ids_N);

// Gives the system back what this thread's calls computed in, and what the allocator keeps of what was freed. For after
// work that needs more than what follows: loading, a long prompt.
void give_back_memory();

// Fills in what the kernels read of the run's blocks, and how they keep keys and values, where every weight has a
// packed form. Throws std::runtime_error where TENON_KEYS names no form, or one that cannot hold these heads.
void pack_kernels(PackedHandle& run);
at::Tensor packed_run(const at::Tensor& x_NC, const PackedHandle& run, Spans spans, std::int64_t slot);

// Numbers (of float32's size) that a sequence keeps of each position for a run's blocks.
std::int64_t kept_numbers(const PackedHandle& run);
// Operations that a row spends on scores and sums in a run's blocks, for every position that it sees.
std::int64_t attention_operations(const PackedHandle& run);

// Have these runs packed forms, and the same weights, biases and norms, so that they differ in changes of low rank
// alone?
bool share_weights(const PackedHandle& a, const PackedHandle& b);

// Rows that a run has at most where every thread may take whole runs.
constexpr std::int64_t kRowsBeside = 16;
// Have these runs packed forms, and blocks of one shape, so that one call may hold both?
bool may_run_beside(const PackedHandle& a, const PackedHandle& b);

// Of one span, the run that it goes through, the slot of its first state, and of how many of its first rows nobody
// reads what comes out: they hold anything then, and their last block only keeps what later rows look back at.
struct RunOfSpan {
  const PackedHandle* run;
  std::int64_t slot, unread = 0;
};
enum class RunWeights { shared, own };
// Rows through several runs at once. Shared weights are read once, and each span adds its own run's changes. Requires:
// the runs share their weights; or each run's spans follow each other, and all may run beside one another.
at::Tensor packed_runs(const at::Tensor& x_NC, std::span<const RunOfSpan> runs, Spans spans,
                       RunWeights weights = RunWeights::shared);

} // namespace tenon

#include "host/execution/arrears.hpp"

#include "host/execution/gather.hpp"

#include <ATen/ATen.h>

namespace tenon {

std::vector<Arrears> arrears(const Experts& experts, const Sequence& sequence, std::int64_t position,
                             const at::Tensor& w_TE) {
  const at::Tensor w = unmasked(w_TE, experts);
  std::vector<Arrears> out;
  bool base = !choose(w, 0).empty();
  for (std::size_t slot = 1; slot < experts.size(); ++slot) {
    if (choose(w, slot).empty()) continue;
    base = base || experts[slot].uses_base_output();
    const auto kind = experts[slot].context().kind;
    const std::int64_t missed = position - sequence.experts[slot].done();
    const bool all = kind == ExpertContext::Kind::causal || kind == ExpertContext::Kind::recurrent;
    if (all && missed > 0) out.push_back({slot, missed});
  }
  const std::int64_t missed = position - sequence.experts[0].done();
  if (base && missed > 0) out.insert(out.begin(), {0, missed});
  return out;
}

// As if the slot were chosen at the last of these positions alone; what it says there is not asked for.
void catch_up(Experts& experts, Sequence& sequence, std::size_t slot, std::int64_t rows) {
  at::NoGradGuard no_grad;
  const std::int64_t last = sequence.experts[slot].done() + rows - 1;
  const Batch batch{{}, {{0, 1, last, &sequence}}};
  const at::Tensor h_1C = sequence.h.rows(last, last + 1);
  at::Tensor w_1E = at::zeros({1, static_cast<std::int64_t>(experts.size())});
  w_1E[0][static_cast<std::int64_t>(slot)].fill_(1.0);
  try {
    Gather(h_1C, experts, batch, w_1E).run(slot, choose(w_1E, slot));
  } catch (const Error& error) {
    experts.fault(slot, error);
  }
}

} // namespace tenon

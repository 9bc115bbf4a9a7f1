#include "host/execution/merge.hpp"

#include "host/execution/gather.hpp"
#include "host/routing/strengths.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

// m_n += w_n y_n over the chosen rows; where the strength is 1 the output stands as it is, sign of zero included.
void add_weighted(at::Tensor& m_NC, const Chosen& chosen, const at::Tensor& y_KC) {
  m_NC.index_add_(0, chosen.rows_K, y_KC * chosen.strengths_K.unsqueeze(1));
  const at::Tensor whole = chosen.strengths_K.eq(1.0f).nonzero().squeeze(1);
  if (whole.numel() > 0) m_NC.index_copy_(0, chosen.rows_K.index_select(0, whole), y_KC.index_select(0, whole));
}

void check_finite(const at::Tensor& y_KC, const LoadedExpert& expert) {
  // One pass: the sum of zeros is zero unless some element is not finite.
  if (const float sum = y_KC.mul(0.0f).sum().item<float>(); sum != 0.0f)
    throw Error(Code::plugin, expert.title(), "forward returned values that are not finite");
}

} // namespace

at::Tensor merge(const at::Tensor& h_NC, const at::Tensor& w_NE, Experts& experts, const Batch& batch) {
  at::NoGradGuard no_grad;
  at::Tensor w = unmasked(w_NE, experts);
  Gather gather(h_NC, experts, batch, w);
  std::vector<at::Tensor> outputs(experts.size());
  for (std::size_t slot = 1; slot < experts.size(); ++slot) {
    const Chosen chosen = choose(w, slot);
    if (chosen.empty()) continue;
    try {
      outputs[slot] = gather.run(slot, chosen);
      check_finite(outputs[slot], experts[slot]);
    } catch (const Error& error) {
      experts.fault(slot, error);
      outputs[slot] = at::Tensor();
      give_to_base(w, static_cast<std::int64_t>(slot));
    }
  }
  // The base last: what a fault leaves over is then already its own.
  if (const Chosen chosen = choose(w, 0); !chosen.empty()) {
    outputs[0] = gather.run(0, chosen);
    check_finite(outputs[0], experts[0]);
  }

  at::Tensor m_NC = at::zeros_like(h_NC);
  for (std::size_t slot = 0; slot < experts.size(); ++slot)
    if (outputs[slot].defined()) add_weighted(m_NC, choose(w, slot), outputs[slot]);
  for (Work& work : experts.work) work.dense_rows += h_NC.size(0);
  return m_NC;
}

} // namespace tenon

#include "host/execution/merge.hpp"

#include "host/routing/strengths.hpp"

#include <ATen/ATen.h>

#include <algorithm>

namespace tenon {

void add_weighted(at::Tensor& m_NC, const Chosen& chosen, const at::Tensor& y_KC) {
  const std::int64_t width = m_NC.size(1);
  const auto* row = chosen.rows_K.data_ptr<std::int64_t>();
  const float *w = chosen.strengths_K.data_ptr<float>(), *y = y_KC.data_ptr<float>();
  for (std::int64_t k = 0; k < chosen.rows_K.numel(); ++k, y += width) {
    float* m = m_NC.data_ptr<float>() + row[k] * width;
    if (w[k] == 1.0f)
      std::copy_n(y, width, m);
    else
      for (std::int64_t c = 0; c < width; ++c) m[c] += w[k] * y[c];
  }
}

at::Tensor checked(const at::Tensor& y, const LoadedExpert& expert) {
  const at::Tensor y_KC = y.contiguous();
  const auto* bits = reinterpret_cast<const std::uint32_t*>(y_KC.data_ptr<float>());
  constexpr std::uint32_t exponent = 0x7f800000; // all ones: infinite, or no number
  std::uint32_t finite = 1;
  for (std::int64_t i = 0; i < y_KC.numel(); ++i) finite &= (bits[i] & exponent) != exponent;
  if (!finite) throw Error(Code::plugin, expert.title(), "forward returned values that are not finite");
  return y_KC;
}

at::Tensor merge(const at::Tensor& h_NC, const at::Tensor& w_NE, Experts& experts, const Batch& batch) {
  at::NoGradGuard no_grad;
  at::Tensor w = unmasked(w_NE, experts);
  Gather gather(h_NC, experts, batch, w);
  std::vector<at::Tensor> outputs(experts.size());
  for (std::size_t slot = 1; slot < experts.size(); ++slot) {
    const Chosen chosen = choose(w, slot);
    if (chosen.empty()) continue;
    try {
      outputs[slot] = checked(gather.run(slot, chosen), experts[slot]);
    } catch (const Error& error) {
      experts.fault(slot, error);
      outputs[slot] = at::Tensor();
      if (w.is_same(w_NE)) w = w_NE.clone();
      give_to_base(w, static_cast<std::int64_t>(slot));
    }
  }
  // The base last: what a fault leaves over is then already its own.
  if (const Chosen chosen = choose(w, 0); !chosen.empty()) {
    outputs[0] = checked(gather.run(0, chosen), experts[0]);
  }

  at::Tensor m_NC = at::zeros_like(h_NC);
  for (std::size_t slot = 0; slot < experts.size(); ++slot)
    if (outputs[slot].defined()) add_weighted(m_NC, choose(w, slot), outputs[slot]);
  for (Work& work : experts.work) work.dense_rows += h_NC.size(0);
  return m_NC;
}

} // namespace tenon

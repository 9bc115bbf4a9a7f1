#include "host/execution/merge.hpp"

#include "host/routing/strengths.hpp"

#include <ATen/ATen.h>

#include <algorithm>

namespace tenon {

void add_weighted(at::Tensor& m_NC, const Chosen& chosen, const at::Tensor& y_KC) {
  const std::int64_t width = m_NC.size(1);
  const float* y = y_KC.data_ptr<float>();
  auto* out = m_NC.data_ptr<float>();
  for (std::size_t k = 0; k < chosen.rows_K.size(); ++k, y += width) {
    const float w = chosen.strengths_K[k];
    float* m = out + chosen.rows_K[k] * width;
    if (w == 1.0f)
      std::copy_n(y, width, m);
    else
      for (std::int64_t c = 0; c < width; ++c) m[c] += w * y[c];
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

namespace {

// An expert's share of the merge.
struct Part {
  Chosen chosen;
  at::Tensor y_KC;
};

// Chosen by all rows, with nothing left for others.
bool at_full_strength(const Chosen& chosen, std::int64_t rows) {
  return chosen.size() == rows && std::all_of(chosen.strengths_K.begin(), chosen.strengths_K.end(),
                                              [](float strength) { return strength == 1.0f; });
}

} // namespace

at::Tensor merge(const at::Tensor& h_NC, const at::Tensor& w_NE, Experts& experts, const Batch& batch) {
  at::NoGradGuard no_grad;
  at::Tensor w = unmasked(w_NE, experts);
  Gather gather(h_NC, experts, batch, w);
  std::vector<Part> parts; // in slot order, in which they are summed, though the base runs last
  const auto run = [&](std::size_t slot) {
    Chosen chosen = choose(w, slot);
    if (chosen.empty()) return;
    const at::Tensor y_KC = checked(gather.run(slot, chosen), experts[slot]);
    parts.insert(slot == 0 ? parts.begin() : parts.end(), {std::move(chosen), y_KC});
  };
  for (std::size_t slot = 1; slot < experts.size(); ++slot) {
    try {
      run(slot);
    } catch (const Error& error) {
      experts.fault(slot, error);
      if (w.is_same(w_NE)) w = w_NE.clone();
      give_to_base(w, static_cast<std::int64_t>(slot));
    }
  }
  // The base last: what a fault leaves over is then already its own.
  run(0);

  for (Work& work : experts.work) work.dense_rows += h_NC.size(0);
  if (parts.size() == 1 && at_full_strength(parts[0].chosen, h_NC.size(0))) return parts[0].y_KC;
  at::Tensor m_NC = at::zeros_like(h_NC);
  for (const Part& part : parts) add_weighted(m_NC, part.chosen, part.y_KC);
  return m_NC;
}

} // namespace tenon

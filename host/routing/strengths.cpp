#include "host/routing/strengths.hpp"

#include <ATen/ATen.h>

namespace tenon {

at::Tensor softmax_strengths(const at::Tensor& scores_NE, double temperature) {
  return (scores_NE / temperature).softmax(-1);
}

at::Tensor top_k_strengths(const at::Tensor& scores_NE, std::int64_t k, double temperature) {
  if (k >= scores_NE.size(-1)) return softmax_strengths(scores_NE, temperature);
  const auto [sorted, order] = scores_NE.sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true);
  const at::Tensor chosen = (sorted.narrow(-1, 0, k) / temperature).softmax(-1);
  return at::zeros_like(scores_NE).scatter(-1, order.narrow(-1, 0, k), chosen);
}

void give_to_base(at::Tensor& strengths_NE, std::int64_t expert) {
  strengths_NE.select(-1, 0).add_(strengths_NE.select(-1, expert));
  strengths_NE.select(-1, expert).zero_();
}

} // namespace tenon

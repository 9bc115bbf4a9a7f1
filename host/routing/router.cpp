#include "host/routing/router.hpp"

#include "host/routing/strengths.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>

namespace tenon {

at::Tensor Normalization::apply(const at::Tensor& h_NC) const { return (h_NC - mean_C) / deviation_C; }

Router::Router(Normalization normalization, const std::vector<Row>& rows, Routing routing, double prior)
    : normalization_(std::move(normalization)), routing_(std::move(routing)), prior_(prior) {
  if (routing_.policy != "token")
    throw Error(Code::incompatible, "router", "found policy \"" + routing_.policy + "\", this host has: token");
  if (routing_.strengths != "softmax" && routing_.strengths != "top_k")
    throw Error(Code::incompatible, "router",
                "found strengths \"" + routing_.strengths + "\", this host has: softmax, top_k");
  const std::int64_t width = normalization_.mean_C.size(0);
  r_EC_ = at::empty({static_cast<std::int64_t>(rows.size()), width});
  b_E_ = at::empty({static_cast<std::int64_t>(rows.size())});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    r_EC_[i].copy_(rows[i].r_C);
    b_E_[i].fill_(rows[i].b);
  }
}

// Row by row, so that a score does not depend on which other rows are there.
at::Tensor Router::scores(const at::Tensor& h_NC) const {
  const at::Tensor n_NC = normalization_.apply(h_NC);
  at::Tensor scores_NE = at::empty({h_NC.size(0), experts()});
  scores_NE.select(-1, 0).fill_(prior_);
  for (std::int64_t i = 0; i + 1 < experts(); ++i) scores_NE.select(-1, i + 1).copy_(n_NC.mv(r_EC_[i]).add_(b_E_[i]));
  return scores_NE;
}

at::Tensor Router::sparsify(const at::Tensor& scores_NE) const {
  return routing_.strengths == "softmax" ? softmax_strengths(scores_NE, routing_.temperature)
                                         : top_k_strengths(scores_NE, routing_.top_k, routing_.temperature);
}

at::Tensor Router::strengths(const at::Tensor& h_NC, const Batch& batch) const {
  at::Tensor w_NE = sparsify(scores(h_NC));
  for (const BatchRows& row : batch.rows) {
    if (row.position != 0 || row.length == 0) continue;
    w_NE[row.offset].zero_();
    w_NE[row.offset][0].fill_(1.0);
  }
  return w_NE;
}

double fit_prior(const at::Tensor& scores_NE, const Router& router, double base_share) {
  const auto share = [&](double prior) {
    at::Tensor scores = scores_NE.clone();
    scores.select(-1, 0).fill_(prior);
    return router.sparsify(scores).select(-1, 0).mean().item<double>();
  };
  if (scores_NE.size(-1) < 2 || share(0.0) >= base_share) return 0.0;
  double low = 0.0, high = 1.0;
  while (share(high) < base_share) {
    if (high > 1e6) throw Error(Code::numeric, "router", "no prior gives the base its share of general text");
    low = high, high *= 2;
  }
  for (int i = 0; i < 40; ++i) (share((low + high) / 2) < base_share ? low : high) = (low + high) / 2;
  return high;
}

} // namespace tenon

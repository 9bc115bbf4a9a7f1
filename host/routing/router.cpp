#include "host/routing/router.hpp"

#include "host/routing/policy.hpp"
#include "host/routing/strengths.hpp"
#include "kernels/cpu/engine.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace tenon {

namespace {

void require(const char* what, const std::string& found, std::initializer_list<const char*> known) {
  std::string has;
  for (const char* one : known) {
    if (found == one) return;
    has += (has.empty() ? "" : ", ") + std::string(one);
  }
  throw Error(Code::incompatible, "router", std::string("found ") + what + " \"" + found + "\", this host has: " + has);
}

// Scores without what this sequence excludes; the scores themselves where it excludes nothing.
at::Tensor exclude(const at::Tensor& scores_TE, const Sequence* sequence) {
  if (!sequence || sequence->excluded.empty()) return scores_TE;
  at::Tensor left_TE = scores_TE.clone(at::MemoryFormat::Contiguous);
  auto* left = left_TE.data_ptr<float>();
  const std::size_t slots = sequence->excluded.size();
  if (slots > static_cast<std::size_t>(left_TE.size(1)))
    throw Error(Code::bug, "router", "a sequence excludes experts that the composition does not have");
  for (std::int64_t row = 0; row < left_TE.size(0); ++row, left += left_TE.size(1))
    for (std::size_t slot = 1; slot < slots; ++slot)
      if (sequence->excluded[slot]) left[slot] = -INFINITY;
  return left_TE;
}

// So many rows from here on take the base.
void give_all_to_base(float* w_TE, std::int64_t rows, std::int64_t experts) {
  std::fill_n(w_TE, rows * experts, 0.0f);
  for (std::int64_t row = 0; row < rows; ++row) w_TE[row * experts] = 1.0f;
}

} // namespace

at::Tensor Normalization::apply(const at::Tensor& h_NC) const { return (h_NC - mean_C) / deviation_C; }

Router::Router(Normalization normalization, const std::vector<Row>& rows, Routing routing, double prior)
    : normalization_{normalization.mean_C.contiguous(), normalization.deviation_C.contiguous()},
      routing_(std::move(routing)),
      prior_(prior) {
  require("policy", routing_.policy, {"token", "sticky", "sequence"});
  require("strengths", routing_.strengths, {"softmax", "top_k", "sparsemax", "entmax"});
  if (const std::string problem = routing_.problem(); !problem.empty())
    throw Error(Code::incompatible, "router", problem);
  const std::int64_t width = normalization_.mean_C.size(0);
  if (normalization_.deviation_C.sizes() != normalization_.mean_C.sizes())
    throw Error(Code::integrity, "router", "found other numbers of means and deviations");
  r_EC_ = at::empty({static_cast<std::int64_t>(rows.size()), width});
  b_E_ = at::empty({static_cast<std::int64_t>(rows.size())});
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].r_C.sizes() != normalization_.mean_C.sizes())
      throw Error(Code::integrity, "router",
                  "found a row of " + std::to_string(rows[i].r_C.numel()) + " numbers, the model is " +
                      std::to_string(width) + " wide");
    r_EC_[i].copy_(rows[i].r_C);
    b_E_[i].fill_(rows[i].b);
  }
}

at::Tensor Router::scores(const at::Tensor& h_NC) const {
  at::Tensor scores_NE = at::empty({h_NC.size(0), experts()});
  score(h_NC, scores_NE.data_ptr<float>());
  return scores_NE;
}

void Router::score(const at::Tensor& h_NC, float* scores_NE) const {
  constexpr std::int64_t block = 64; // rows, and experts, whose numbers stay in a processor's cache
  const at::Tensor from_NC = h_NC.to(at::kFloat).contiguous();
  const std::int64_t rows = from_NC.size(0), width = from_NC.size(1), others = experts() - 1;
  std::vector<float> n_NC(static_cast<std::size_t>(rows * width));
  const float *h = from_NC.data_ptr<float>(), *mean = normalization_.mean_C.data_ptr<float>(),
              *deviation = normalization_.deviation_C.data_ptr<float>(), *r = r_EC_.data_ptr<float>(),
              *b = b_E_.data_ptr<float>();
  for (std::int64_t row = 0; row < rows; ++row) {
    float* n = n_NC.data() + row * width;
    for (std::int64_t c = 0; c < width; ++c) n[c] = (h[row * width + c] - mean[c]) / deviation[c];
    scores_NE[row * experts()] = static_cast<float>(prior_);
  }
  const cpu::Engine& engine = cpu::engine();
  const std::int64_t parts = (others + block - 1) / block;
  engine.pool->run((rows + block - 1) / block * parts, [&](std::int64_t task) {
    const std::int64_t row = task / parts * block, expert = task % parts * block;
    for (std::int64_t t = row; t < std::min(rows, row + block); ++t)
      for (std::int64_t i = expert; i < std::min(others, expert + block); ++i)
        scores_NE[t * experts() + 1 + i] = engine.kernels->dot(n_NC.data() + t * width, r + i * width, width) + b[i];
  });
}

at::Tensor Router::sparsify(const at::Tensor& scores_NE) const {
  if (routing_.strengths == "softmax") return softmax_strengths(scores_NE, routing_.temperature);
  if (routing_.strengths == "sparsemax") return sparsemax_strengths(scores_NE, routing_.temperature);
  if (routing_.strengths == "entmax") return entmax_strengths(scores_NE, routing_.temperature);
  return top_k_strengths(scores_NE, routing_.top_k, routing_.temperature);
}

Routed Router::route(const at::Tensor& h_NC, const Batch& batch) const {
  if (experts() == 1) return {at::full({h_NC.size(0), 1}, prior_, at::kFloat), at::ones({h_NC.size(0), 1})};
  const at::Tensor scores_NE = scores(h_NC);
  at::Tensor w_NE = at::empty_like(scores_NE);
  for (const BatchRows& rows : batch.rows) {
    if (rows.length == 0) continue;
    float* w_TE = w_NE.data_ptr<float>() + rows.offset * experts();
    const std::int64_t skip = rows.position == 0 ? 1 : 0, count = rows.length - skip;
    give_all_to_base(w_TE, skip, experts());
    if (routing_.policy == "sequence") decide_sequence(h_NC.narrow(0, rows.offset, rows.length), rows, w_TE);
    if (routing_.policy == "sequence" || count == 0) continue;
    const at::Tensor read_TE = averaged(scores_NE.narrow(0, rows.offset + skip, count), rows);
    PolicyState alone; // a whole sequence, or one that remembers
    const at::Tensor found_TE =
        routing_.policy == "token"
            ? sparsify(read_TE)
            : sticky_strengths(read_TE, rows.position + skip, routing_, rows.sequence ? rows.sequence->policy : alone);
    std::copy_n(found_TE.data_ptr<float>(), found_TE.numel(), w_TE + skip * experts());
  }
  return {scores_NE, w_NE};
}

at::Tensor Router::strengths(const at::Tensor& h_NC, const Batch& batch) const {
  if (experts() > 1) return route(h_NC, batch).strengths_NE;
  at::Tensor w_N1 = at::empty({h_NC.size(0), 1}); // the base alone, whatever it scores
  std::fill_n(w_N1.data_ptr<float>(), w_N1.numel(), 1.0f);
  return w_N1;
}

// Remembered, or the same bits of the rows that are kept.
void Router::scores_before(const BatchRows& rows, std::int64_t count, float* scores_TE) const {
  const PolicyState& state = rows.sequence->policy;
  if (state.scored != rows.position)
    return score(rows.sequence->h.rows(rows.position - count, rows.position), scores_TE);
  const at::Tensor last_TE = state.scores_RE.narrow(0, state.scores_RE.size(0) - count, count);
  std::copy_n(last_TE.data_ptr<float>(), last_TE.numel(), scores_TE);
}

at::Tensor Router::averaged(const at::Tensor& scores_TE, const BatchRows& rows) const {
  const std::int64_t over = routing_.average_over;
  if (over == 1 || !rows.sequence) return exclude(average_scores(scores_TE, over), rows.sequence);
  PolicyState& state = rows.sequence->policy;
  const std::int64_t before = std::clamp<std::int64_t>(rows.position - 1, 0, over - 1),
                     all = before + scores_TE.size(0);
  at::Tensor all_TE = at::empty({all, experts()});
  auto* to = all_TE.data_ptr<float>();
  if (before > 0) scores_before(rows, before, to);
  std::copy_n(scores_TE.data_ptr<float>(), scores_TE.numel(), to + before * experts());
  state.scores_RE = all > over ? all_TE.narrow(0, all - over, over).clone() : all_TE;
  state.scored = rows.position + rows.length;
  return exclude(average_scores(all_TE, over, before), rows.sequence);
}

// Always from the same rows in one piece, so that chunks change nothing.
void Router::decide_sequence(const at::Tensor& h_TC, const BatchRows& rows, float* w_TE) const {
  const std::int64_t last = rows.position + rows.length, n = routing_.decide_after;
  const std::int64_t before = std::clamp<std::int64_t>(n - rows.position, 0, rows.length);
  give_all_to_base(w_TE, before, experts());
  if (last <= n) return;
  PolicyState alone;
  PolicyState& state = rows.sequence ? rows.sequence->policy : alone;
  if (!state.fixed_E.defined()) {
    const at::Tensor first_NC = rows.sequence ? rows.sequence->h.rows(1, n) : h_TC.narrow(0, 1, n - 1);
    state.fixed_E = sparsify(exclude(scores(first_NC).mean(0, true), rows.sequence)).squeeze(0);
  }
  const at::Tensor fixed_E = state.fixed_E.contiguous();
  for (std::int64_t row = before; row < rows.length; ++row)
    std::copy_n(fixed_E.data_ptr<float>(), experts(), w_TE + row * experts());
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

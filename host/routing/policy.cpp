#include "host/routing/policy.hpp"

#include "host/routing/strengths.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

using Slots = std::vector<std::int64_t>;

// The k best slots, ascending.
Slots best_slots(const float* scores_E, std::int64_t experts, std::int64_t k) {
  Slots slots(static_cast<std::size_t>(experts));
  for (std::int64_t i = 0; i < experts; ++i) slots[static_cast<std::size_t>(i)] = i;
  const auto better = [&](std::int64_t a, std::int64_t b) {
    return scores_E[a] != scores_E[b] ? scores_E[a] > scores_E[b] : a < b;
  };
  std::partial_sort(slots.begin(), slots.begin() + k, slots.end(), better);
  slots.resize(static_cast<std::size_t>(k));
  std::sort(slots.begin(), slots.end());
  return slots;
}

// Exchanges kept slots for better ones while the margin is exceeded. True where anything changed.
bool exchange(Slots& kept, const float* scores_E, std::int64_t experts, double margin) {
  bool changed = false;
  while (true) {
    std::int64_t outside = -1;
    for (std::int64_t i = 0; i < experts; ++i)
      if (!std::binary_search(kept.begin(), kept.end(), i) && (outside < 0 || scores_E[i] > scores_E[outside]))
        outside = i;
    // The last of the worst: the lower slot is the better one.
    const auto worst = std::min_element(kept.rbegin(), kept.rend(),
                                        [&](std::int64_t a, std::int64_t b) { return scores_E[a] < scores_E[b]; });
    if (outside < 0 || !(scores_E[outside] > static_cast<double>(scores_E[*worst]) + margin)) return changed;
    *worst = outside;
    std::sort(kept.begin(), kept.end());
    changed = true;
  }
}

} // namespace

at::Tensor average_scores(const at::Tensor& scores_TE, std::int64_t over, std::int64_t from) {
  if (over == 1 && from == 0) return scores_TE;
  const at::Tensor from_TE = scores_TE.contiguous();
  const std::int64_t experts = from_TE.size(1), rows = from_TE.size(0);
  at::Tensor out_TE = at::empty({rows - from, experts});
  for (std::int64_t t = from; t < rows; ++t) {
    const std::int64_t first = std::max<std::int64_t>(0, t - over + 1);
    float* out_E = out_TE.data_ptr<float>() + (t - from) * experts;
    out_E[0] = from_TE.data_ptr<float>()[t * experts];
    std::fill(out_E + 1, out_E + experts, 0.0f);
    for (std::int64_t u = first; u <= t; ++u) {
      const float* scores_E = from_TE.data_ptr<float>() + u * experts;
      for (std::int64_t i = 1; i < experts; ++i) out_E[i] += scores_E[i];
    }
    for (std::int64_t i = 1; i < experts; ++i) out_E[i] /= static_cast<float>(t - first + 1);
  }
  return out_TE;
}

at::Tensor sticky_strengths(const at::Tensor& scores_TE, std::int64_t first, const Routing& routing,
                            PolicyState& state) {
  const std::int64_t experts = scores_TE.size(1), k = std::min(routing.top_k, experts);
  const at::Tensor contiguous_TE = scores_TE.contiguous();
  at::Tensor masked_TE = at::empty_like(contiguous_TE);
  std::fill_n(masked_TE.data_ptr<float>(), masked_TE.numel(), -INFINITY);
  for (std::int64_t t = 0; t < contiguous_TE.size(0); ++t) {
    const float* scores_E = contiguous_TE.data_ptr<float>() + t * experts;
    if (state.kept.empty()) {
      state.kept.push_back({first + t, best_slots(scores_E, experts, k)});
    } else if (Slots kept = state.kept.back().slots; exchange(kept, scores_E, experts, routing.margin)) {
      state.kept.push_back({first + t, std::move(kept)});
    }
    float* masked_E = masked_TE.data_ptr<float>() + t * experts;
    for (const std::int64_t slot : state.kept.back().slots) masked_E[slot] = scores_E[slot];
  }
  return softmax_strengths(masked_TE, routing.temperature);
}

} // namespace tenon

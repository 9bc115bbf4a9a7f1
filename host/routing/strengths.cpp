#include "host/routing/strengths.hpp"

#include "kernels/cpu/engine.hpp"
#include "kernels/cpu/routing.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace tenon {
namespace {

// rule(scores of a row, experts, shares) gives how many have a share. NaN or +infinity among the scores makes NaN of
// the whole row; -infinity leaves an expert out.
template <class Rule>
at::Tensor row_by_row(const at::Tensor& scores_NE, const Rule& rule) {
  const at::Tensor scores = scores_NE.contiguous();
  at::Tensor w_NE = at::empty_like(scores);
  std::fill_n(w_NE.data_ptr<float>(), w_NE.numel(), 0.0f);
  const std::int64_t experts = scores.size(-1), rows = experts > 0 ? scores.numel() / experts : 0;
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(experts));
  std::vector<float> shares(static_cast<std::size_t>(experts));
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = scores.data_ptr<float>() + row * experts;
    float* to = w_NE.data_ptr<float>() + row * experts;
    if (std::any_of(from, from + experts, [](float score) { return !(score < INFINITY); })) {
      std::fill(to, to + experts, std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    const std::int64_t count = rule(from, chosen.data(), shares.data());
    for (std::int64_t i = 0; i < count; ++i) to[chosen[i]] = shares[i];
  }
  return w_NE;
}

} // namespace

at::Tensor softmax_strengths(const at::Tensor& scores_NE, double temperature) {
  return row_by_row(scores_NE, [&](const float* scores, std::int32_t* experts, float* shares) {
    const std::int64_t count = scores_NE.size(-1);
    const double largest = *std::max_element(scores, scores + count);
    double sum = 0.0;
    for (std::int64_t i = 0; i < count; ++i) {
      experts[i] = static_cast<std::int32_t>(i);
      sum += shares[i] = static_cast<float>(std::exp((scores[i] - largest) / temperature));
    }
    for (std::int64_t i = 0; i < count; ++i) shares[i] = static_cast<float>(shares[i] / sum);
    return count;
  });
}

at::Tensor top_k_strengths(const at::Tensor& scores_NE, std::int64_t k, double temperature) {
  if (k >= scores_NE.size(-1)) return softmax_strengths(scores_NE, temperature);
  return row_by_row(scores_NE, [&](const float* scores, std::int32_t* experts, float* shares) {
    return cpu::top_k(*cpu::engine().kernels, scores, scores_NE.size(-1), k, static_cast<float>(temperature), experts,
                      shares);
  });
}

at::Tensor sparsemax_strengths(const at::Tensor& scores_NE, double temperature) {
  return row_by_row(scores_NE, [&](const float* scores, std::int32_t* experts, float* shares) {
    return cpu::sparsemax(*cpu::engine().kernels, scores, scores_NE.size(-1), static_cast<float>(temperature), experts,
                          shares);
  });
}

at::Tensor entmax_strengths(const at::Tensor& scores_NE, double temperature) {
  return row_by_row(scores_NE, [&](const float* scores, std::int32_t* experts, float* shares) {
    return cpu::entmax15(*cpu::engine().kernels, scores, scores_NE.size(-1), static_cast<float>(temperature), experts,
                         shares);
  });
}

void give_to_base(at::Tensor& strengths_NE, std::int64_t expert) {
  strengths_NE.select(-1, 0).add_(strengths_NE.select(-1, expert));
  strengths_NE.select(-1, expert).zero_();
}

} // namespace tenon

// Mixture: feed-forwards side by side, of which every row goes through the few that a router of its own likes best,
//   y = sum over the `active` best e of w_e * expert_e(x),  w = softmax over their scores router(x),  expert a SwiGlu
// Source: Shazeer et al. 2017 (arXiv 1701.06538), equations 1 and 3 to 5, without noise. In inference one operator for
// all experts and rows. Scores are float32, whatever the precision of products, so that rounding moves no row to
// another expert (Fedus et al. 2021, arXiv 2101.03961, section 2.4).
#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <tenon/nn/swiglu.hpp>

#include <tuple>

namespace tenon::nn {

struct MixtureOptions {
  std::int64_t width = 0, inner_width = 0; // of each expert
  std::int64_t experts = 0, active = 0;
  double balance = 0.01; // weight of a loss that spreads rows over experts, in training
};

class Mixture : public torch::nn::Module {
 public:
  explicit Mixture(const MixtureOptions& options) : options_(options) {
    if (options.active > options.experts)
      throw Failure(TENON_BAD_CONFIG, "active " + std::to_string(options.active) + " is more than experts " +
                                          std::to_string(options.experts));
    router = register_module("router", std::make_shared<Linear>(options.width, options.experts));
    const auto list = register_module("experts", std::make_shared<torch::nn::Module>("experts"));
    for (std::int64_t e = 0; e < options.experts; ++e)
      experts.push_back(
          list->register_module(std::to_string(e), std::make_shared<SwiGlu>(options.width, options.inner_width)));
  }

  // x (N,C) -> (N,C).
  Tensor forward(const Tensor& x_NC) {
    if (!is_training()) return operators::mixture(x_NC, packed());
    const Tensor scores_NE = scores(x_NC);
    const auto [best_NK, chosen_NK] = scores_NE.topk(options_.active, -1);
    const Tensor w_NK = best_NK.softmax(-1);
    add_balance(scores_NE, chosen_NK);
    Tensor y_NC = at::zeros(x_NC.sizes(), w_NK.options());
    for (std::size_t e = 0; e < experts.size(); ++e) {
      const std::vector<Tensor> places = chosen_NK.eq(static_cast<std::int64_t>(e)).nonzero().unbind(1); // row, choice
      if (places[0].size(0) == 0) continue;
      const Tensor w_n1 = at::index(w_NK, {places[0], places[1]}).unsqueeze(1);
      y_NC = y_NC.index_add(0, places[0], experts[e]->forward(x_NC.index_select(0, places[0])) * w_n1);
    }
    return y_NC;
  }

  void train(bool on = true) override {
    packed_ = Packed();
    Module::train(on);
  }

  std::shared_ptr<Linear> router;
  std::vector<std::shared_ptr<SwiGlu>> experts;

 private:
  Tensor scores(const Tensor& x_NC) const {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    return at::linear(x_NC.to(router->weight.scalar_type()), router->weight);
  }

  // The loss of balance joins the scores' gradient, so that forward need not return it:
  //   balance * E * sum_e f_e mean_n p_ne,  f_e the share of choices that fell on e, a constant;  p = softmax(scores)
  // Source: Fedus et al. 2021 (arXiv 2101.03961), equations 4 to 6.
  void add_balance(const Tensor& scores_NE, const Tensor& chosen_NK) const {
    if (!scores_NE.requires_grad() || options_.balance == 0.0) return;
    const Tensor p_NE = scores_NE.detach().softmax(-1);
    const Tensor f_E = at::bincount(chosen_NK.flatten(), {}, options_.experts).to(p_NE.scalar_type()) /
                       static_cast<double>(chosen_NK.numel());
    const double scale = options_.balance * static_cast<double>(options_.experts) / static_cast<double>(p_NE.size(0));
    const Tensor more_NE = p_NE * (f_E - (p_NE * f_E).sum(-1, true)) * scale;
    scores_NE.register_hook([more_NE](const Tensor& gradient_NE) { return gradient_NE + more_NE; });
  }

  // Requires: weights are final until the next train(true).
  const Packed& packed() {
    if (!packed_.isNone()) return packed_;
    std::vector<Packed> linears;
    for (const auto& expert : experts)
      for (const auto& product : expert->products()) linears.push_back(product->packed());
    return packed_ = operators::pack_mixture(router->weight, linears, options_.active);
  }

  MixtureOptions options_;
  Packed packed_;
};

} // namespace tenon::nn

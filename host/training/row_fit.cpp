#include "host/training/row_fit.hpp"

#include "registry/base/error.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <deque>

namespace tenon {
namespace {

constexpr std::int64_t kMaxIterations = 500, kMemory = 12;
constexpr double kGradientEnough = 1e-7;

// The objective on x = (r, b). Rows carry their class in `sign` (+1 domain, -1 general) and weigh half a class
// together.
class Objective {
 public:
  Objective(const at::Tensor& domain, const at::Tensor& general, double l2) : l2_(l2) {
    rows_ = at::cat({domain.to(at::kDouble), general.to(at::kDouble)});
    sign_ = at::cat({at::ones({domain.size(0)}, at::kDouble), at::full({general.size(0)}, -1.0, at::kDouble)});
    weight_ = at::cat({at::full({domain.size(0)}, 0.5 / static_cast<double>(domain.size(0)), at::kDouble),
                       at::full({general.size(0)}, 0.5 / static_cast<double>(general.size(0)), at::kDouble)});
  }

  double at(const at::Tensor& x, at::Tensor& gradient) const {
    const std::int64_t width = rows_.size(1);
    const at::Tensor r = x.narrow(0, 0, width), margin = (rows_.mv(r) + x[width]) * sign_;
    const double loss = (at::softplus(-margin) * weight_).sum().item<double>();
    const at::Tensor slope = -at::sigmoid(-margin) * sign_ * weight_;
    gradient = at::cat({rows_.t().mv(slope) + 2.0 * l2_ * r, slope.sum().view({1})});
    return loss + l2_ * r.square().sum().item<double>();
  }

  void report(const at::Tensor& x, RowFit& fit) const {
    const std::int64_t width = rows_.size(1);
    const at::Tensor margin = (rows_.mv(x.narrow(0, 0, width)) + x[width]) * sign_;
    fit.loss = (at::softplus(-margin) * weight_).sum().item<double>();
    fit.accuracy = (margin.gt(0).to(at::kDouble) * weight_).sum().item<double>();
  }

 private:
  at::Tensor rows_, sign_, weight_;
  double l2_;
};

double dot_product(const at::Tensor& a, const at::Tensor& b) { return a.dot(b).item<double>(); }

// The quasi-Newton direction: Nocedal and Wright 2006, algorithm 7.4.
class History {
 public:
  at::Tensor direction(const at::Tensor& gradient) const {
    at::Tensor q = gradient.clone();
    std::vector<double> alpha(pairs_.size());
    for (std::size_t i = pairs_.size(); i-- > 0;) {
      alpha[i] = dot_product(pairs_[i].s, q) / pairs_[i].sy;
      q.sub_(pairs_[i].y, alpha[i]);
    }
    if (!pairs_.empty()) q.mul_(pairs_.back().sy / dot_product(pairs_.back().y, pairs_.back().y));
    for (std::size_t i = 0; i < pairs_.size(); ++i)
      q.add_(pairs_[i].s, alpha[i] - dot_product(pairs_[i].y, q) / pairs_[i].sy);
    return q.neg_();
  }
  void add(const at::Tensor& s, const at::Tensor& y) {
    const double sy = dot_product(s, y);
    if (!(sy > 1e-300)) return;
    pairs_.push_back({s, y, sy});
    if (pairs_.size() > static_cast<std::size_t>(kMemory)) pairs_.pop_front();
  }

 private:
  struct Pair {
    at::Tensor s, y;
    double sy;
  };
  std::deque<Pair> pairs_;
};

void check_inputs(const at::Tensor& domain, const at::Tensor& general) {
  if (domain.size(0) == 0 || general.size(0) == 0)
    throw Error(Code::usage, "row",
                "found " + std::to_string(domain.size(0)) + " positions of the expert's text and " +
                    std::to_string(general.size(0)) + " of general text, need some of both",
                "give more text with --data");
  for (const at::Tensor* each : {&domain, &general})
    if (!at::isfinite(*each).all().item<bool>())
      throw Error(Code::numeric, "row", "the trunk's outputs are not finite", "verify the model: tenon verify");
}

} // namespace

RowFit fit_row(const at::Tensor& n_domain_NC, const at::Tensor& n_general_NC, double l2) {
  at::NoGradGuard no_grad;
  check_inputs(n_domain_NC, n_general_NC);
  const Objective objective(n_domain_NC, n_general_NC, l2);
  const std::int64_t width = n_domain_NC.size(1);
  at::Tensor x = at::zeros({width + 1}, at::kDouble), gradient;
  double value = objective.at(x, gradient);
  History history;
  RowFit fit;
  for (; fit.iterations < kMaxIterations; ++fit.iterations) {
    if (gradient.abs().max().item<double>() < kGradientEnough) break;
    const at::Tensor direction = history.direction(gradient);
    const double slope = dot_product(direction, gradient);
    double step = fit.iterations == 0 ? std::min(1.0, 1.0 / gradient.norm().item<double>()) : 1.0, next_value = 0.0;
    at::Tensor next, next_gradient;
    // The objective is convex and smooth: halving until it falls enough always ends, but for rounding.
    for (int halvings = 0;; ++halvings, step /= 2) {
      next = x + direction * step;
      next_value = objective.at(next, next_gradient);
      if (next_value <= value + 1e-4 * step * slope || halvings == 40) break;
    }
    if (!(next_value < value)) break;
    history.add(next - x, next_gradient - gradient);
    x = next, gradient = next_gradient, value = next_value;
  }
  if (!std::isfinite(value)) throw Error(Code::numeric, "row", "the fit of the row is not finite");
  objective.report(x, fit);
  fit.gradient = gradient.abs().max().item<double>();
  // float32, as it is stored, so that training sees what a composition will see.
  fit.row.r_C = x.narrow(0, 0, width).to(at::kFloat).contiguous();
  fit.row.b = static_cast<double>(static_cast<float>(x[width].item<double>()));
  return fit;
}

} // namespace tenon

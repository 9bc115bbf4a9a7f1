#include "host/training/optimizer.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tenon {

double schedule(std::int64_t step, std::int64_t steps, std::int64_t warmup, double floor) {
  const double up = warmup > 0 ? std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(warmup)) : 1.0;
  const double along = static_cast<double>(step) / static_cast<double>(std::max<std::int64_t>(steps, 1));
  return std::max(floor, up * 0.5 * (1.0 + std::cos(std::numbers::pi * along)));
}

double gradient_norm(const NamedTensors& parameters) {
  double sum = 0.0;
  for (const auto& [name, parameter] : parameters)
    if (parameter.grad().defined()) {
      const double norm = parameter.grad().norm().item<double>();
      sum += norm * norm;
    }
  return std::sqrt(sum);
}

void clip_gradients(const NamedTensors& parameters, double norm, double max_norm) {
  if (max_norm <= 0 || norm <= max_norm) return;
  for (const auto& [name, parameter] : parameters)
    if (parameter.grad().defined()) parameter.mutable_grad().mul_(max_norm / norm);
}

AdamW::AdamW(NamedTensors parameters, double weight_decay, double beta1, double beta2, double eps)
    : parameters_(std::move(parameters)), weight_decay_(weight_decay), beta1_(beta1), beta2_(beta2), eps_(eps) {
  for (const auto& [name, parameter] : parameters_) {
    first_.push_back(at::zeros_like(parameter.detach()));
    second_.push_back(at::zeros_like(parameter.detach()));
  }
}

void AdamW::step(std::int64_t number, double learning_rate) {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> values, gradients, first, second, numbers;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i].second;
    if (!parameter.grad().defined()) continue;
    values.push_back(parameter.detach());
    gradients.push_back(parameter.grad());
    first.push_back(first_[i]);
    second.push_back(second_[i]);
    numbers.push_back(at::scalar_tensor(static_cast<double>(number), at::kFloat));
  }
  if (values.empty()) return;
  at::_fused_adamw_(values, gradients, first, second, {}, numbers, learning_rate, beta1_, beta2_, weight_decay_, eps_,
                    /*amsgrad=*/false, /*maximize=*/false);
}

void AdamW::clear_gradients() {
  for (auto& [name, parameter] : parameters_) parameter.mutable_grad().reset();
}

NamedTensors AdamW::state() const {
  NamedTensors out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    out.emplace_back("m/" + parameters_[i].first, first_[i]);
    out.emplace_back("v/" + parameters_[i].first, second_[i]);
  }
  return out;
}

} // namespace tenon

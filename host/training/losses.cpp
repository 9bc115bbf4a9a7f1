#include "host/training/losses.hpp"

#include "kernels/cpu/cross_entropy.hpp"
#include "kernels/cpu/engine.hpp"
#include "kernels/gradients.hpp"
#include "kernels/threads.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace tenon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Both nodes compute their gradient on the way forward, so backward only scales it.
variable_list scaled(AutogradContext* context, const variable_list& gradients) {
  return {context->get_saved_variables()[0] * gradients[0], at::Tensor(), at::Tensor()};
}

at::Tensor keep(AutogradContext* context, const at::Tensor& gradient_NC, double mean) {
  context->save_for_backward({gradient_NC});
  return at::scalar_tensor(mean, at::kFloat);
}

struct CrossEntropyNode : torch::autograd::Function<CrossEntropyNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& features_NC, const at::Tensor& targets_N,
                            const VocabularyLoss* loss) {
    const at::Tensor gradient_NC = at::empty_like(features_NC, at::kFloat);
    return keep(context, gradient_NC, loss->cross_entropy_into(features_NC, targets_N, gradient_NC));
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return scaled(context, gradients);
  }
};

struct DivergenceNode : torch::autograd::Function<DivergenceNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& features_NC, const at::Tensor& base_NC,
                            const VocabularyLoss* loss) {
    const at::Tensor gradient_NC = at::empty_like(features_NC, at::kFloat);
    return keep(context, gradient_NC, loss->divergence_into(features_NC, base_NC, gradient_NC));
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return scaled(context, gradients);
  }
};

template <class Number>
double cross_entropy_of(Number* logits_nV, std::int64_t vocabulary, const at::Tensor& targets_n) {
  const cpu::Kernels& kernels = *cpu::engine().kernels;
  const at::Tensor loss_n = at::empty(targets_n.sizes(), at::kFloat), target_n = targets_n.contiguous();
  auto* loss = loss_n.data_ptr<float>();
  const auto* target = target_n.data_ptr<std::int64_t>();
  for (std::int64_t n = 0; n < target_n.size(0); ++n)
    TORCH_CHECK_INDEX(target[n] >= 0 && target[n] < vocabulary, "target ", target[n], " of ", vocabulary, " tokens");
  parallel_for(0, target_n.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch(static_cast<std::size_t>(cpu::cross_entropy_scratch(vocabulary)));
    for (std::int64_t n = begin; n < end; ++n)
      loss[n] = cpu::cross_entropy_row(kernels, logits_nV + n * vocabulary, vocabulary, target[n], scratch.data());
  });
  return loss_n.sum(at::kDouble).item<double>();
}

// The sum over positions; the logits become the gradient towards them.
double cross_entropy_of(const at::Tensor& logits_nV, const at::Tensor& targets_n) {
  if (logits_nV.scalar_type() == at::kFloat)
    return cross_entropy_of(logits_nV.data_ptr<float>(), logits_nV.size(1), targets_n);
  static_assert(sizeof(at::BFloat16) == sizeof(std::uint16_t));
  return cross_entropy_of(reinterpret_cast<std::uint16_t*>(logits_nV.data_ptr<at::BFloat16>()), logits_nV.size(1),
                          targets_n);
}

// Calls body(first, count) over equal chunks of [0, rows).
template <class Body>
void for_chunks(std::int64_t rows, std::int64_t chunks, Body&& body) {
  for (std::int64_t i = 0; i < chunks; ++i) {
    const std::int64_t first = rows * i / chunks, last = rows * (i + 1) / chunks;
    if (last > first) body(first, last - first);
  }
}

} // namespace

VocabularyLoss::VocabularyLoss(const at::Tensor& unembedding_VC, bool bfloat16, std::int64_t chunk_bytes)
    : rounds_(bfloat16 && !narrow_products_are_fast()),
      unembedding_VC_(rounds_ ? rounded(unembedding_VC.detach())
                              : unembedding_VC.detach().to(bfloat16 ? at::kBFloat16 : at::kFloat)),
      chunk_rows_(std::max<std::int64_t>(1, chunk_bytes / (4 * unembedding_VC.size(0)))) {}

at::Tensor VocabularyLoss::cross_entropy(const at::Tensor& features_NC, const at::Tensor& targets_N) const {
  return CrossEntropyNode::apply(features_NC, targets_N, this);
}

at::Tensor VocabularyLoss::divergence(const at::Tensor& features_NC, const at::Tensor& base_features_NC) const {
  return DivergenceNode::apply(features_NC, base_features_NC.detach(), this);
}

double VocabularyLoss::cross_entropy_into(const at::Tensor& features_NC, const at::Tensor& targets_N,
                                          at::Tensor gradient_NC) const {
  at::NoGradGuard no_grad;
  const std::int64_t rows = features_NC.size(0);
  double sum = 0.0;
  for_chunks(rows, chunks(rows), [&](std::int64_t first, std::int64_t count) {
    const at::Tensor logits_nV = logits(features_NC.narrow(0, first, count));
    sum += cross_entropy_of(logits_nV, targets_N.narrow(0, first, count));
    if (!gradient_NC.defined()) return;
    gradient_NC.narrow(0, first, count).copy_(towards_features(logits_nV)).div_(static_cast<double>(rows));
  });
  return sum / static_cast<double>(rows);
}

double VocabularyLoss::divergence_into(const at::Tensor& features_NC, const at::Tensor& base_features_NC,
                                       at::Tensor gradient_NC) const {
  at::NoGradGuard no_grad;
  const std::int64_t rows = features_NC.size(0);
  double sum = 0.0;
  for_chunks(rows, chunks(rows), [&](std::int64_t first, std::int64_t count) {
    at::Tensor log_q_nV = log_probabilities(features_NC.narrow(0, first, count), first_);
    at::Tensor log_p_nV = log_probabilities(base_features_NC.narrow(0, first, count), second_);
    at::Tensor p_nV = buffer(third_, count, at::kFloat);
    at::exp_out(p_nV, log_p_nV);
    sum += log_p_nV.sub_(log_q_nV).mul_(p_nV).sum(at::kDouble).item<double>();
    if (!gradient_NC.defined()) return;
    log_q_nV.exp_().sub_(p_nV);
    gradient_NC.narrow(0, first, count).copy_(towards_features(log_q_nV)).div_(static_cast<double>(rows));
  });
  return sum / static_cast<double>(rows);
}

at::Tensor VocabularyLoss::per_position(const at::Tensor& features_NC, const at::Tensor& targets_N) const {
  at::NoGradGuard no_grad;
  const std::int64_t rows = features_NC.size(0);
  at::Tensor out_N = at::empty({rows}, at::kFloat);
  for_chunks(rows, chunks(rows), [&](std::int64_t first, std::int64_t count) {
    const at::Tensor p_nV = log_probabilities(features_NC.narrow(0, first, count), first_);
    out_N.narrow(0, first, count)
        .copy_(p_nV.gather(1, targets_N.narrow(0, first, count).unsqueeze(1)).squeeze(1).neg_());
  });
  return out_N;
}

std::int64_t VocabularyLoss::chunks(std::int64_t rows) const { return (rows + chunk_rows_ - 1) / chunk_rows_; }

at::Tensor VocabularyLoss::buffer(at::Tensor& kept, std::int64_t rows, at::ScalarType type) const {
  if (!kept.defined() || kept.size(0) < rows) kept = at::empty({rows, unembedding_VC_.size(0)}, type);
  return kept.narrow(0, 0, rows);
}

// Products here choose their own precision, whatever autocast surrounds the call.
at::Tensor VocabularyLoss::logits(const at::Tensor& features_nC) const {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  at::Tensor logits_nV = buffer(logits_, features_nC.size(0), unembedding_VC_.scalar_type());
  at::mm_out(logits_nV, operand(features_nC), unembedding_VC_.t());
  return logits_nV;
}

at::Tensor VocabularyLoss::operand(const at::Tensor& x) const {
  return rounds_ ? rounded(x) : x.to(unembedding_VC_.scalar_type());
}

at::Tensor VocabularyLoss::log_probabilities(const at::Tensor& features_nC, at::Tensor& kept) const {
  at::Tensor out_nV = buffer(kept, features_nC.size(0), at::kFloat);
  at::_log_softmax_out(out_nV, logits(features_nC).to(at::kFloat), 1, false);
  return out_nV;
}

at::Tensor VocabularyLoss::towards_features(const at::Tensor& gradient_nV) const {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return at::mm(operand(gradient_nV), unembedding_VC_);
}

} // namespace tenon

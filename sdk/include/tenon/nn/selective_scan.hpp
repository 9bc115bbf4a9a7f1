// SelectiveScan: a diagonal linear system per channel whose step, input and output depend on the input.
//   (d, B, C)_t = x_proj x_t;   D_t = softplus(dt_proj d_t)
//   s_t = exp(D_t A) s_{t-1} + (D_t x_t) B_t,   y_t = <C_t, s_t> + skip x_t,   A = -exp(a_log)
// Source: Gu and Dao 2023, Mamba (arXiv 2312.00752), equation 2 and algorithm 2 (S6), A by zero-order hold, B by Euler.
// Training scans all positions in log(T) rounds; inference takes one step a position, whatever came before.
// State: s (F,S) in `slot`.
#pragma once

#include <tenon/nn/linear.hpp>
#include <tenon/nn/norm.hpp>
#include <tenon/nn/sequences.hpp>

namespace tenon::nn {

// s_t = a_t s_{t-1} + b_t along dimension 1, s before the first being 0. Neighbours are merged into pairs, those
// scanned, and the positions between filled in: twice the work of a loop in log(T) rounds. Only products of a, never a
// quotient, so it is safe for any 0 <= a <= 1. Source: Blelloch 1990, "Prefix sums and their applications",
// section 1.4.
inline Tensor linear_recurrence(const Tensor& a, const Tensor& b) {
  const std::int64_t length = b.size(1), pairs = length / 2, firsts = length - pairs;
  if (length == 1) return b;
  const Tensor a_first = a.slice(1, 0, length, 2), b_first = b.slice(1, 0, length, 2),
               a_second = a.slice(1, 1, length, 2), b_second = b.slice(1, 1, length, 2);
  const Tensor s_second = linear_recurrence(a_second * a_first.narrow(1, 0, pairs),
                                            at::addcmul(b_second, a_second, b_first.narrow(1, 0, pairs)));
  const Tensor s_later = at::addcmul(b_first.narrow(1, 1, firsts - 1), a_first.narrow(1, 1, firsts - 1),
                                     s_second.narrow(1, 0, firsts - 1));
  const Tensor s_first = at::cat({b_first.narrow(1, 0, 1), s_later}, 1);
  const Tensor both = at::stack({s_first.narrow(1, 0, pairs), s_second}, 2).flatten(1, 2);
  return firsts == pairs ? both : at::cat({both, s_first.narrow(1, pairs, 1)}, 1);
}

class SelectiveScan : public torch::nn::Module {
 public:
  SelectiveScan(std::int64_t width, std::int64_t state_size, std::int64_t dt_rank, std::uint32_t slot)
      : state_size_(state_size), dt_rank_(dt_rank), slot_(slot) {
    x_proj = register_module("x_proj", std::make_shared<Linear>(width, dt_rank + 2 * state_size));
    dt_proj = register_module("dt_proj", std::make_shared<Linear>(dt_rank, width, /*with_bias=*/true));
    a_log = register_parameter("a_log", at::empty({width, state_size}));
    skip = register_parameter("skip", at::empty({width}));
  }

  // x (N,F) -> (N,F).
  Tensor forward(const Tensor& x_NF, c10::ArrayRef<Span> spans) {
    const auto parts = x_proj->forward(x_NF).split_with_sizes({dt_rank_, state_size_, state_size_}, -1);
    const Tensor x = wide(x_NF), delta_NF = at::softplus(wide(dt_proj->forward(parts[0]))), B_NS = wide(parts[1]),
                 C_NS = wide(parts[2]);
    return skip * x + (is_training() ? training(delta_NF, x, B_NS, C_NS, spans)
                                     : inference(delta_NF, delta_NF * x, B_NS, C_NS, spans));
  }

  void add_state(StateLayout& layout, const std::string& prefix) const {
    layout.fixed(prefix + "s", a_log.sizes().vec());
  }

  // After the values at birth: A = -1..-S (the paper's S4D-Real), steps from 0.001 to 0.1 over the channels.
  void spread_time_scales() {
    const std::int64_t width = a_log.size(0);
    a_log.copy_(at::arange(1, state_size_ + 1).log().expand_as(a_log));
    const Tensor step_F = at::logspace(-3.0, -1.0, width);
    dt_proj->bias.copy_(step_F + at::log(-at::expm1(-step_F))); // softplus of it is the step
  }

  std::shared_ptr<Linear> x_proj, dt_proj;
  Tensor a_log, skip;

 private:
  Tensor training(const Tensor& delta_NF, const Tensor& x_NF, const Tensor& B_NS, const Tensor& C_NS,
                  c10::ArrayRef<Span> spans) const {
    const Tensor decay_NFS = at::exp(delta_NF.unsqueeze(2) * -a_log.exp()),
                 input_NFS = (delta_NF * x_NF).unsqueeze(2) * B_NS.unsqueeze(1);
    const Tensor s_BTFS = linear_recurrence(batched(decay_NFS, spans), batched(input_NFS, spans));
    return (s_BTFS.view_as(input_NFS) * C_NS.unsqueeze(1)).sum(2);
  }

  Tensor inference(const Tensor& delta_NF, const Tensor& input_NF, const Tensor& B_NS, const Tensor& C_NS,
                   c10::ArrayRef<Span> spans) const {
    const Steps steps(spans);
    const Tensor A_FS = -a_log.exp();
    Tensor s_SFS = steps.recall(slot_, a_log.sizes(), delta_NF.options()), y_NF = at::empty_like(delta_NF);
    for (std::int64_t t = 0; t < steps.count(); ++t) {
      Tensor s_RFS = s_SFS.narrow(0, 0, steps.running(t));
      s_RFS.mul_(at::exp(steps.take(delta_NF, t).unsqueeze(2) * A_FS))
          .addcmul_(steps.take(input_NF, t).unsqueeze(2), steps.take(B_NS, t).unsqueeze(1));
      steps.put(y_NF, t, (s_RFS * steps.take(C_NS, t).unsqueeze(1)).sum(2));
    }
    steps.remember(slot_, s_SFS);
    return y_NF;
  }

  std::int64_t state_size_, dt_rank_;
  std::uint32_t slot_;
};

} // namespace tenon::nn

// Recurrent: a layer of LSTM or GRU cells over each sequence, LibTorch's equations and order of gates.
//   lstm  i, f, g, o from W x + V h;  c' = s(f) c + s(i) tanh(g),  h' = s(o) tanh(c')
//   gru   r, z, n:  h' = (1 - s(z)) tanh(n_x + s(r) n_h) + s(z) h
// Sources: Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; Cho et al. 2014 (arXiv 1406.1078),
// equations 5 to 8, with the reset after the product.
// State: h in `slot` and, for lstm, c in `slot + 1`.
#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <tenon/nn/linear.hpp>
#include <tenon/nn/norm.hpp>
#include <tenon/nn/sequences.hpp>

namespace tenon::nn {

enum class Cell { lstm, gru };

class Recurrent : public torch::nn::Module {
 public:
  Recurrent(std::int64_t in, std::int64_t width, Cell cell, std::uint32_t slot)
      : width_(width), cell_(cell), slot_(slot) {
    const std::int64_t gates = (cell == Cell::lstm ? 4 : 3) * width;
    from_x = register_module("from_x", std::make_shared<Linear>(in, gates, /*with_bias=*/true));
    from_h = register_module("from_h", std::make_shared<Linear>(width, gates, /*with_bias=*/true));
  }

  // x (N,C) -> h (N,F).
  Tensor forward(const Tensor& x_NC, c10::ArrayRef<Span> spans) {
    return is_training() ? training(x_NC, spans) : inference(x_NC, spans);
  }

  void add_state(StateLayout& layout, const std::string& prefix) const {
    layout.fixed(prefix + "h", {width_});
    if (cell_ == Cell::lstm) layout.fixed(prefix + "c", {width_});
  }

  // After the values at birth: an LSTM forgets little at first (Jozefowicz et al. 2015).
  void open_forget_gate() {
    if (cell_ == Cell::lstm) from_x->bias.narrow(0, width_, width_).fill_(1.0);
  }

  std::shared_ptr<Linear> from_x, from_h;

 private:
  Tensor training(const Tensor& x_NC, c10::ArrayRef<Span> spans) {
    const Tensor x_BTC = batched(x_NC, spans);
    const Tensor zero_1BF = at::zeros({1, x_BTC.size(0), width_}, x_NC.options());
    const std::vector<Tensor> weights = {from_x->weight, from_h->weight, from_x->bias, from_h->bias};
    const Tensor h_BTF = cell_ == Cell::lstm ? lstm(x_BTC, zero_1BF, weights)
                                             : std::get<0>(at::gru(x_BTC, zero_1BF, weights, /*has_biases=*/true,
                                                                   /*num_layers=*/1, /*dropout=*/0.0, /*train=*/true,
                                                                   /*bidirectional=*/false, /*batch_first=*/true));
    return h_BTF.reshape({x_NC.size(0), width_});
  }

  // In float32 under autocast, too: oneDNN has an LSTM in bfloat16 for some processors only.
  static Tensor lstm(const Tensor& x_BTC, const Tensor& zero_1BF, const std::vector<Tensor>& weights) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    return std::get<0>(at::lstm(wide(x_BTC), {wide(zero_1BF), wide(zero_1BF)}, weights, /*has_biases=*/true,
                                /*num_layers=*/1, /*dropout=*/0.0, /*train=*/true, /*bidirectional=*/false,
                                /*batch_first=*/true));
  }

  Tensor inference(const Tensor& x_NC, c10::ArrayRef<Span> spans) {
    const Steps steps(spans);
    const Tensor x_NG = from_x->forward(x_NC);
    Tensor h_SF = steps.recall(slot_, {width_}, x_NC.options()),
           c_SF = cell_ == Cell::lstm ? steps.recall(slot_ + 1, {width_}, x_NC.options()) : Tensor(),
           y_NF = at::empty({x_NC.size(0), width_}, x_NC.options());
    for (std::int64_t t = 0; t < steps.count(); ++t) {
      Tensor h_RF = h_SF.narrow(0, 0, steps.running(t));
      const Tensor x_RG = steps.take(x_NG, t), h_RG = from_h->forward(h_RF);
      if (cell_ == Cell::lstm)
        lstm_step(x_RG + h_RG, h_RF, c_SF.narrow(0, 0, steps.running(t)));
      else
        gru_step(x_RG, h_RG, h_RF);
      steps.put(y_NF, t, h_RF);
    }
    steps.remember(slot_, h_SF);
    if (cell_ == Cell::lstm) steps.remember(slot_ + 1, c_SF);
    return y_NF;
  }

  static void lstm_step(const Tensor& gates, Tensor h, Tensor c) {
    const auto part = gates.chunk(4, 1);
    c.mul_(part[1].sigmoid()).add_(part[0].sigmoid() * part[2].tanh());
    h.copy_(part[3].sigmoid() * c.tanh());
  }

  static void gru_step(const Tensor& from_x, const Tensor& from_h, Tensor h) {
    const auto x = from_x.chunk(3, 1), back = from_h.chunk(3, 1);
    const Tensor candidate = (x[2] + (x[0] + back[0]).sigmoid() * back[2]).tanh();
    h.sub_(candidate).mul_((x[1] + back[1]).sigmoid()).add_(candidate);
  }

  std::int64_t width_;
  Cell cell_;
  std::uint32_t slot_;
};

} // namespace tenon::nn

// SwiGlu: down(silu(gate(x)) * up(x)). Source: Shazeer 2020 (arXiv 2002.05202), equation 6.
#pragma once

#include <tenon/nn/feed_forward.hpp>

namespace tenon::nn {

class SwiGlu : public FeedForward {
 public:
  SwiGlu(std::int64_t width, std::int64_t inner, const MakeLinear& make = plain_linear) {
    gate = register_module("gate", make("gate", width, inner));
    up = register_module("up", make("up", width, inner));
    down = register_module("down", make("down", inner, width));
  }

  Tensor forward(const Tensor& x_NC) override {
    return down->forward(operators::silu_multiply(gate->forward(x_NC), up->forward(x_NC)));
  }
  std::vector<std::shared_ptr<Linear>> products() const override { return {gate, up, down}; }

  std::shared_ptr<Linear> gate, up, down;
};

} // namespace tenon::nn

// FeedForward: the part of a block that sees one position at a time, width -> inner width -> width.
// Gelu: down(gelu(up(x))), in the tanh form. Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2.
#pragma once

#include <tenon/nn/attention.hpp>

#include <vector>

namespace tenon::nn {

class FeedForward : public torch::nn::Module {
 public:
  virtual Tensor forward(const Tensor& x_NC) = 0;
  // In the order in which a packed block takes them.
  virtual std::vector<std::shared_ptr<Linear>> products() const = 0;
};

class Gelu : public FeedForward {
 public:
  Gelu(std::int64_t width, std::int64_t inner, const MakeLinear& make = plain_linear) {
    up = register_module("up", make("up", width, inner));
    down = register_module("down", make("down", inner, width));
  }

  Tensor forward(const Tensor& x_NC) override { return down->forward(at::gelu(up->forward(x_NC), "tanh")); }
  std::vector<std::shared_ptr<Linear>> products() const override { return {up, down}; }

  std::shared_ptr<Linear> up, down;
};

} // namespace tenon::nn

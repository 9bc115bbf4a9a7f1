// Linear: y = W x + bias. In training an operator with a gradient; in inference one on a packed handle.
// Requires: weights are final between train(false) and the next train(true).
#pragma once

#include <tenon/operators.hpp>

namespace tenon::nn {

class Linear : public torch::nn::Module {
 public:
  Linear(std::int64_t in, std::int64_t out, bool with_bias = false) {
    weight = register_parameter("weight", at::empty({out, in}));
    if (with_bias) add_bias();
  }

  // Before the first use. Requires: there is none yet.
  void add_bias() { bias = register_parameter("bias", at::empty({weight.size(0)})); }

  // x (N,in) -> (N,out); in training any leading dimensions.
  virtual Tensor forward(const Tensor& x) {
    return is_training() ? operators::trainable_linear(x, weight, bias) : operators::linear(x, packed());
  }

  const Packed& packed() {
    if (packed_.isNone()) packed_ = pack();
    return packed_;
  }

  void train(bool on = true) override {
    packed_ = Packed();
    Module::train(on);
  }

  Tensor weight, bias;

 protected:
  virtual Packed pack() { return operators::pack_linear(weight, bias); }

 private:
  Packed packed_;
};

} // namespace tenon::nn

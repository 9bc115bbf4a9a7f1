// LayerNorm: (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias over the last dimension, computed in float32 at
// least. Source: Ba, Kiros and Hinton 2016 (arXiv 1607.06450), equation 4.
#pragma once

#include <tenon/nn/block_kind.hpp>
#include <tenon/nn/rms_norm.hpp>

#include <memory>

namespace tenon::nn {

class LayerNorm : public Norm {
 public:
  LayerNorm(std::int64_t width, double eps) : Norm(width, eps) {
    bias = register_parameter("bias", at::empty({width}));
  }

  Tensor forward(const Tensor& x) override {
    if (!is_training()) return operators::layer_norm(x, weight, bias, eps());
    const Tensor wide_x = wide(x), centred = wide_x - wide_x.mean(-1, true);
    return centred * at::rsqrt(centred.square().mean(-1, true) + eps()) * weight + bias;
  }
};

inline std::shared_ptr<Norm> make_norm(NormKind kind, std::int64_t width, double eps) {
  if (kind == NormKind::layer) return std::make_shared<LayerNorm>(width, eps);
  return std::make_shared<RmsNorm>(width, eps);
}

} // namespace tenon::nn

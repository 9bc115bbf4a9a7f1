// Attention: causal self-attention with rotary positions and grouped keys and values.
// Sources: Vaswani et al. 2017 (arXiv 1706.03762), equation 1; Ainslie et al. 2023 (arXiv 2305.13245) for the groups.
// State: keys in `slot`, values in `slot + 1`, one row (G,D) a position.
#pragma once

#include <tenon/nn/linear.hpp>
#include <tenon/nn/rope.hpp>
#include <tenon/nn/sequences.hpp>

#include <functional>
#include <memory>

namespace tenon::nn {

// Makes the product `name` ("q", "gate", ...; in a Transformer "blocks.3.q"): a Linear, or what stands in for one.
using MakeLinear = std::function<std::shared_ptr<Linear>(const std::string& name, std::int64_t in, std::int64_t out)>;

inline std::shared_ptr<Linear> plain_linear(const std::string&, std::int64_t in, std::int64_t out) {
  return std::make_shared<Linear>(in, out);
}

struct AttentionOptions {
  std::int64_t width, heads, kv_heads, head_dim;
  double rope_theta;
};

class Attention : public torch::nn::Module {
 public:
  Attention(const AttentionOptions& options, std::uint32_t slot, const MakeLinear& make = plain_linear)
      : options_(options), slot_(slot), rope_(options.head_dim, options.rope_theta) {
    const std::int64_t q_width = options.heads * options.head_dim, kv_width = options.kv_heads * options.head_dim;
    q = register_module("q", make("q", options.width, q_width));
    k = register_module("k", make("k", options.width, kv_width));
    v = register_module("v", make("v", options.width, kv_width));
    o = register_module("o", make("o", q_width, options.width));
  }

  Tensor forward(const Tensor& x_NC, c10::ArrayRef<Span> spans) {
    const Tensor q_NHD = heads(q->forward(x_NC), options_.heads), k_NGD = heads(k->forward(x_NC), options_.kv_heads),
                 v_NGD = heads(v->forward(x_NC), options_.kv_heads);
    const Tensor y_NHD = is_training() ? training(q_NHD, k_NGD, v_NGD, spans)
                                       : operators::attention(rope_.inference(q_NHD, spans),
                                                              rope_.inference(k_NGD, spans), v_NGD, spans, slot_);
    return o->forward(y_NHD.reshape({x_NC.size(0), -1}));
  }

  void add_state(StateLayout& layout, const std::string& prefix) const {
    layout.per_position(prefix + "k", {options_.kv_heads, options_.head_dim});
    layout.per_position(prefix + "v", {options_.kv_heads, options_.head_dim});
  }

  std::shared_ptr<Linear> q, k, v, o;

 private:
  Tensor heads(const Tensor& x_NC, std::int64_t count) const {
    return x_NC.view({x_NC.size(0), count, options_.head_dim});
  }

  // Whole sequences of one length; gradient flows.
  Tensor training(const Tensor& q_NHD, const Tensor& k_NGD, const Tensor& v_NGD, c10::ArrayRef<Span> spans) {
    const auto grouped = [&](const Tensor& x_BTGD) {
      return at::repeat_interleave(x_BTGD.transpose(1, 2), options_.heads / options_.kv_heads, 1);
    };
    const Tensor y_BHTD = at::scaled_dot_product_attention(rope_.training(batched(q_NHD, spans)).transpose(1, 2),
                                                           grouped(rope_.training(batched(k_NGD, spans))),
                                                           grouped(batched(v_NGD, spans)), {}, 0.0, /*is_causal=*/true);
    return y_BHTD.transpose(1, 2).reshape({q_NHD.size(0), options_.heads, options_.head_dim});
  }

  AttentionOptions options_;
  std::uint32_t slot_;
  Rope rope_;
};

} // namespace tenon::nn

// Attention: causal self-attention with grouped keys and values; as its kind says with rotary positions, biases, and a
// norm for every head of q and k.
// Sources: Vaswani et al. 2017 (arXiv 1706.03762), equation 1; Ainslie et al. 2023 (arXiv 2305.13245) for the groups;
// Henry et al. 2020 (arXiv 2010.04245) for norms of q and k, here RMS norms with weights.
// State: keys in `slot`, values in `slot + 1`, one row (G,D) a position.
#pragma once

#include <tenon/nn/block_kind.hpp>
#include <tenon/nn/linear.hpp>
#include <tenon/nn/rms_norm.hpp>
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
  double rope_theta; // counts only with rotary positions
  BlockKind kind = {};
  double norm_eps = 1e-6; // counts only with norms of q and k
};

class Attention : public torch::nn::Module {
 public:
  Attention(const AttentionOptions& options, std::uint32_t slot, const MakeLinear& make = plain_linear)
      : options_(options), slot_(slot), rope_(options.head_dim, options.rope_theta) {
    const std::int64_t q_width = options.heads * options.head_dim, kv_width = options.kv_heads * options.head_dim;
    const bool all = options.kind.bias == BiasKind::all, qkv = all || options.kind.bias == BiasKind::qkv;
    const auto product = [&](const char* name, std::int64_t in, std::int64_t out, bool bias) {
      const auto made = register_module(name, make(name, in, out));
      if (bias) made->add_bias();
      return made;
    };
    q = product("q", options.width, q_width, qkv);
    k = product("k", options.width, kv_width, qkv);
    v = product("v", options.width, kv_width, qkv);
    o = product("o", q_width, options.width, all);
    if (!options.kind.qk_norm) return;
    q_norm = register_module("q_norm", std::make_shared<RmsNorm>(options.head_dim, options.norm_eps));
    k_norm = register_module("k_norm", std::make_shared<RmsNorm>(options.head_dim, options.norm_eps));
  }

  Tensor forward(const Tensor& x_NC, c10::ArrayRef<Span> spans) {
    const Tensor q_NHD = heads(q->forward(x_NC), options_.heads, q_norm),
                 k_NGD = heads(k->forward(x_NC), options_.kv_heads, k_norm),
                 v_NGD = heads(v->forward(x_NC), options_.kv_heads, nullptr);
    const Tensor y_NHD = is_training()
                             ? training(q_NHD, k_NGD, v_NGD, spans)
                             : operators::attention(rotated(q_NHD, spans), rotated(k_NGD, spans), v_NGD, spans, slot_);
    return o->forward(y_NHD.reshape({x_NC.size(0), -1}));
  }

  void add_state(StateLayout& layout, const std::string& prefix) const {
    layout.per_position(prefix + "k", {options_.kv_heads, options_.head_dim});
    layout.per_position(prefix + "v", {options_.kv_heads, options_.head_dim});
  }

  std::shared_ptr<Linear> q, k, v, o;
  std::shared_ptr<RmsNorm> q_norm, k_norm; // null where the kind has none

 private:
  Tensor heads(const Tensor& x_NC, std::int64_t count, const std::shared_ptr<RmsNorm>& norm) const {
    const Tensor x_NHD = x_NC.view({x_NC.size(0), count, options_.head_dim});
    return norm ? norm->forward(x_NHD) : x_NHD;
  }
  Tensor rotated(const Tensor& x_NHD, c10::ArrayRef<Span> spans) const {
    return options_.kind.rotary ? rope_.inference(x_NHD, spans) : x_NHD;
  }

  // Whole sequences of one length; gradient flows.
  Tensor training(const Tensor& q_NHD, const Tensor& k_NGD, const Tensor& v_NGD, c10::ArrayRef<Span> spans) {
    const auto turned = [&](const Tensor& x) {
      const Tensor x_BTHD = batched(x, spans);
      return options_.kind.rotary ? rope_.training(x_BTHD) : x_BTHD;
    };
    const Tensor y_BTHD = operators::causal_attention(turned(q_NHD), turned(k_NGD), batched(v_NGD, spans));
    return y_BTHD.reshape({q_NHD.size(0), options_.heads, options_.head_dim});
  }

  AttentionOptions options_;
  std::uint32_t slot_;
  Rope rope_;
};

} // namespace tenon::nn

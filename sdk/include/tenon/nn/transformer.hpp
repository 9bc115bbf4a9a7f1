// TransformerBlock: h + attention(norm(h)), then h + feed_forward(norm(h)); of Llama's kind, or another.
// Transformer: blocks one after another. In inference the whole run is one operator; trunk, head, base and a stranger's
// expert are the same code.
#pragma once

#include <tenon/nn/layer_norm.hpp>
#include <tenon/nn/swiglu.hpp>
#include <tenon/nn/transformer_options.hpp>

namespace tenon::nn {

class TransformerBlock : public torch::nn::Module {
 public:
  TransformerBlock(const TransformerOptions& options, std::uint32_t slot, const MakeLinear& make = plain_linear)
      : options_(options) {
    attention_norm = register_module("attention_norm", make_norm(options.kind.norm, options.width, options.norm_eps));
    const AttentionOptions part{options.width,      options.heads, options.kv_heads, options.head_dim,
                                options.rope_theta, options.kind,  options.norm_eps};
    attention = register_module("attention", std::make_shared<Attention>(part, slot, make));
    ffn_norm = register_module("ffn_norm", make_norm(options.kind.norm, options.width, options.norm_eps));
    ffn = register_module("ffn", feed_forward(make));
    if (options.kind.bias == BiasKind::all)
      for (const auto& product : ffn->products()) product->add_bias();
  }

  // Operators with gradients where it trains; a block on its own in inference still goes operator by operator.
  Tensor forward(const Tensor& h_NC, c10::ArrayRef<Span> spans) {
    const Tensor a_NC = h_NC + attention->forward(attention_norm->forward(h_NC), spans);
    return a_NC + ffn->forward(ffn_norm->forward(a_NC));
  }

  Packed pack() {
    std::vector<Packed> linears;
    for (const auto& linear : {attention->q, attention->k, attention->v, attention->o})
      linears.push_back(linear->packed());
    for (const auto& linear : ffn->products()) linears.push_back(linear->packed());
    operators::BlockNorms norms{attention_norm->weight, attention_norm->bias, ffn_norm->weight, ffn_norm->bias, {}, {}};
    if (options_.kind.qk_norm) norms.q = attention->q_norm->weight, norms.k = attention->k_norm->weight;
    return operators::pack_block(linears, norms,
                                 {options_.heads, options_.kv_heads, options_.head_dim, options_.norm_eps,
                                  options_.kind.rotary ? options_.rope_theta : 0.0});
  }

  std::shared_ptr<Norm> attention_norm, ffn_norm;
  std::shared_ptr<Attention> attention;
  std::shared_ptr<FeedForward> ffn;

 private:
  std::shared_ptr<FeedForward> feed_forward(const MakeLinear& make) const {
    if (options_.kind.ffn == FfnKind::gelu) return std::make_shared<Gelu>(options_.width, options_.ffn_width, make);
    return std::make_shared<SwiGlu>(options_.width, options_.ffn_width, make);
  }

  TransformerOptions options_;
};

class Transformer : public torch::nn::Module {
 public:
  explicit Transformer(const TransformerOptions& options, const MakeLinear& make = plain_linear, std::uint32_t slot = 0)
      : slot_(slot) {
    const auto list = register_module("blocks", std::make_shared<torch::nn::Module>("blocks"));
    for (std::int64_t i = 0; i < options.blocks; ++i) {
      const auto named = [&](const std::string& name, std::int64_t in, std::int64_t out) {
        return make("blocks." + std::to_string(i) + "." + name, in, out);
      };
      blocks.push_back(
          list->register_module(std::to_string(i), std::make_shared<TransformerBlock>(options, slot + 2 * i, named)));
    }
  }

  Tensor forward(const Tensor& h_NC, c10::ArrayRef<Span> spans) {
    if (blocks.empty()) return h_NC;
    if (!is_training()) return operators::run(h_NC, packed(), spans, slot_);
    Tensor x_NC = h_NC;
    for (const auto& block : blocks) x_NC = block->forward(x_NC, spans);
    return x_NC;
  }

  void add_state(StateLayout& layout) const {
    for (std::size_t i = 0; i < blocks.size(); ++i)
      blocks[i]->attention->add_state(layout, "blocks." + std::to_string(i) + ".");
  }

  void train(bool on = true) override {
    packed_ = Packed();
    Module::train(on);
  }

  // The whole run as one handle. Requires: train(false); weights are final until the next train(true).
  const Packed& packed() {
    if (!packed_.isNone()) return packed_;
    std::vector<Packed> all;
    for (const auto& block : blocks) all.push_back(block->pack());
    return packed_ = operators::pack_run(all);
  }

  std::vector<std::shared_ptr<TransformerBlock>> blocks;

 private:
  std::uint32_t slot_;
  Packed packed_;
};

} // namespace tenon::nn

// TransformerBlock: h + attention(norm(h)), then h + swiglu(norm(h)): a block of Llama's kind.
// Transformer: blocks one after another. In inference the whole run is one operator; trunk, head, base and a stranger's
// expert are the same code.
#pragma once

#include <tenon/nn/rms_norm.hpp>
#include <tenon/nn/swiglu.hpp>

namespace tenon::nn {

struct TransformerOptions {
  std::int64_t width, blocks, heads, kv_heads, head_dim, ffn_width;
  double norm_eps, rope_theta;

  // From {"blocks", "heads", "kv_heads", "head_dim", "ffn_width", "norm_eps", "rope_theta"}.
  static TransformerOptions from(const Config& config, std::int64_t width) {
    TransformerOptions options{};
    options.width = width;
    options.blocks = config.at("blocks").integer();
    options.heads = config.at("heads").integer();
    options.kv_heads = config.at("kv_heads").integer();
    options.head_dim = config.at("head_dim").integer();
    options.ffn_width = config.at("ffn_width").integer();
    options.norm_eps = config.at("norm_eps").number();
    options.rope_theta = config.at("rope_theta").number();
    if (options.kv_heads < 1 || options.heads % options.kv_heads != 0)
      throw Failure(TENON_BAD_CONFIG, "heads " + std::to_string(options.heads) + " is no multiple of kv_heads " +
                                          std::to_string(options.kv_heads));
    if (options.head_dim % 2 != 0)
      throw Failure(TENON_BAD_CONFIG, "head_dim " + std::to_string(options.head_dim) + " is odd, rotary needs pairs");
    return options;
  }
};

class TransformerBlock : public torch::nn::Module {
 public:
  TransformerBlock(const TransformerOptions& options, std::uint32_t slot, const MakeLinear& make = plain_linear)
      : options_(options) {
    attention_norm = register_module("attention_norm", std::make_shared<RmsNorm>(options.width, options.norm_eps));
    attention = register_module(
        "attention", std::make_shared<Attention>(AttentionOptions{options.width, options.heads, options.kv_heads,
                                                                  options.head_dim, options.rope_theta},
                                                 slot, make));
    ffn_norm = register_module("ffn_norm", std::make_shared<RmsNorm>(options.width, options.norm_eps));
    ffn = register_module("ffn", std::make_shared<SwiGlu>(options.width, options.ffn_width, make));
  }

  // Plain LibTorch where it trains; a block on its own in inference still goes operator by operator.
  Tensor forward(const Tensor& h_NC, c10::ArrayRef<Span> spans) {
    const Tensor a_NC = h_NC + attention->forward(attention_norm->forward(h_NC), spans);
    return a_NC + ffn->forward(ffn_norm->forward(a_NC));
  }

  Packed pack() {
    std::vector<Packed> linears;
    for (const auto& linear : {attention->q, attention->k, attention->v, attention->o, ffn->gate, ffn->up, ffn->down})
      linears.push_back(linear->packed());
    return operators::pack_block(
        linears, attention_norm->weight, ffn_norm->weight,
        {options_.heads, options_.kv_heads, options_.head_dim, options_.norm_eps, options_.rope_theta});
  }

  std::shared_ptr<RmsNorm> attention_norm, ffn_norm;
  std::shared_ptr<Attention> attention;
  std::shared_ptr<SwiGlu> ffn;

 private:
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

  std::vector<std::shared_ptr<TransformerBlock>> blocks;

 private:
  const Packed& packed() {
    if (!packed_.isNone()) return packed_;
    std::vector<Packed> all;
    for (const auto& block : blocks) all.push_back(block->pack());
    return packed_ = operators::pack_run(all);
  }

  std::uint32_t slot_;
  Packed packed_;
};

} // namespace tenon::nn

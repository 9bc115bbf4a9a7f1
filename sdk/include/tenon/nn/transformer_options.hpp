// TransformerOptions: the sizes and the kind of transformer blocks, out of a configuration.
#pragma once

#include <tenon/host.hpp>
#include <tenon/nn/block_kind.hpp>

namespace tenon::nn {

struct TransformerOptions {
  std::int64_t width, blocks, heads, kv_heads, head_dim, ffn_width;
  double norm_eps, rope_theta; // rope_theta counts only with rotary positions
  BlockKind kind = {};

  // From {"blocks", "heads", "kv_heads", "head_dim", "ffn_width", "norm_eps", "rope_theta"} and, where they are not
  // Llama's, {"norm", "ffn", "bias", "qk_norm", "rotary"}.
  static TransformerOptions from(const Config& config, std::int64_t width) {
    TransformerOptions options{};
    options.width = width;
    options.blocks = config.at("blocks").integer();
    options.heads = config.at("heads").integer();
    options.kv_heads = config.at("kv_heads").integer();
    options.head_dim = config.at("head_dim").integer();
    options.ffn_width = config.at("ffn_width").integer();
    options.norm_eps = config.at("norm_eps").number();
    options.kind = kind_from(config);
    if (options.kind.rotary) options.rope_theta = config.at("rope_theta").number();
    if (options.kv_heads < 1 || options.heads % options.kv_heads != 0)
      throw Failure(TENON_BAD_CONFIG, "heads " + std::to_string(options.heads) + " is no multiple of kv_heads " +
                                          std::to_string(options.kv_heads));
    if (options.kind.rotary && options.head_dim % 2 != 0)
      throw Failure(TENON_BAD_CONFIG, "head_dim " + std::to_string(options.head_dim) + " is odd, rotary needs pairs");
    return options;
  }

 private:
  static BlockKind kind_from(const Config& config) {
    BlockKind kind;
    choose(config, "norm", norm_of, kind.norm);
    choose(config, "ffn", ffn_of, kind.ffn);
    choose(config, "bias", bias_of, kind.bias);
    if (config.has("qk_norm")) kind.qk_norm = config.at("qk_norm").boolean();
    if (config.has("rotary")) kind.rotary = config.at("rotary").boolean();
    return kind;
  }
  template <class Choice>
  static void choose(const Config& config, const char* key, std::optional<Choice> (*of)(std::string_view),
                     Choice& choice) {
    if (!config.has(key)) return;
    const std::string name = config.at(key).text();
    const auto found = of(name);
    if (!found) throw Failure(TENON_BAD_CONFIG, std::string(key) + ": found \"" + name + "\", which is no choice");
    choice = *found;
  }
};

} // namespace tenon::nn

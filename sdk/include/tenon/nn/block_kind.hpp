// What makes the blocks of one model family differ from those of another. The default is Llama's. Plain data, without
// LibTorch: those who read model files use it too.
//
// Thread: values; any.
#pragma once

#include <optional>
#include <string_view>

namespace tenon::nn {

enum class NormKind { rms, layer };     // root mean square and a weight; or mean and variance, a weight and a bias
enum class FfnKind { swiglu, gelu };    // down(silu(gate(x)) * up(x)); or down(gelu(up(x))), in the tanh form
enum class BiasKind { none, qkv, all }; // which products of a block add a bias

struct BlockKind {
  NormKind norm = NormKind::rms;
  FfnKind ffn = FfnKind::swiglu;
  BiasKind bias = BiasKind::none;
  bool qk_norm = false; // every head of q and k goes through an RMS norm of its own, before it is rotated
  bool rotary = true;   // q and k are rotated by their positions
  bool operator==(const BlockKind&) const = default;
};

// Their names in configurations; nullopt for another text.
constexpr const char* norm_name(NormKind norm) { return norm == NormKind::rms ? "rms" : "layer"; }
constexpr const char* ffn_name(FfnKind ffn) { return ffn == FfnKind::swiglu ? "swiglu" : "gelu"; }
constexpr const char* bias_name(BiasKind bias) {
  return bias == BiasKind::none ? "none" : bias == BiasKind::qkv ? "qkv" : "all";
}

constexpr std::optional<NormKind> norm_of(std::string_view name) {
  for (const NormKind norm : {NormKind::rms, NormKind::layer})
    if (name == norm_name(norm)) return norm;
  return std::nullopt;
}
constexpr std::optional<FfnKind> ffn_of(std::string_view name) {
  for (const FfnKind ffn : {FfnKind::swiglu, FfnKind::gelu})
    if (name == ffn_name(ffn)) return ffn;
  return std::nullopt;
}
constexpr std::optional<BiasKind> bias_of(std::string_view name) {
  for (const BiasKind bias : {BiasKind::none, BiasKind::qkv, BiasKind::all})
    if (name == bias_name(bias)) return bias;
  return std::nullopt;
}

} // namespace tenon::nn

// A Llama-type model of a few kilobytes, as a GGUF file and as a Hugging Face directory with the same weights.
#pragma once

#include "host/formats/safetensors.hpp"
#include "tests/support/gguf_bytes.hpp"

#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace tenon {

// C 32, two layers, four heads of 8 (two for keys and values), F 64, V 48. Weights count up, so every row differs.
struct TinyLlama {
  static constexpr std::size_t C = 32, heads = 4, kv_heads = 2, head_dim = 8, F = 64, V = 48, layers = 2;

  struct Weight {
    std::string gguf, hf; // the names in the two sources
    std::vector<std::size_t> shape;
    std::string data; // float32; rows of q and k in Hugging Face's order
  };
  std::vector<Weight> weights = make();

  static std::vector<Weight> make() {
    std::vector<Weight> all;
    float next = 0;
    const auto add = [&](const std::string& gguf, const std::string& hf, const std::vector<std::size_t>& shape) {
      std::string data;
      for (std::size_t n = shape.size() == 1 ? shape[0] : shape[0] * shape[1]; n > 0; --n)
        data += GgufBytes::raw(next += 0.5f);
      all.push_back({gguf + ".weight", hf + ".weight", shape, data});
    };
    add("token_embd", "model.embed_tokens", {V, C});
    for (std::size_t i = 0; i < layers; ++i) {
      const std::string g = "blk." + std::to_string(i) + ".", h = "model.layers." + std::to_string(i) + ".";
      add(g + "attn_norm", h + "input_layernorm", {C});
      add(g + "attn_q", h + "self_attn.q_proj", {heads * head_dim, C});
      add(g + "attn_k", h + "self_attn.k_proj", {kv_heads * head_dim, C});
      add(g + "attn_v", h + "self_attn.v_proj", {kv_heads * head_dim, C});
      add(g + "attn_output", h + "self_attn.o_proj", {C, heads * head_dim});
      add(g + "ffn_norm", h + "post_attention_layernorm", {C});
      add(g + "ffn_gate", h + "mlp.gate_proj", {F, C});
      add(g + "ffn_up", h + "mlp.up_proj", {F, C});
      add(g + "ffn_down", h + "mlp.down_proj", {C, F});
    }
    add("output_norm", "model.norm", {C});
    return all;
  }

  // Llama's converter: a head's two halves become neighbours. (Written from its side; the reader does the inverse.)
  static std::string to_neighbours(const Weight& w) {
    const std::size_t row_bytes = w.data.size() / w.shape[0], half = head_dim / 2;
    std::string out;
    for (std::size_t head = 0; head < w.shape[0] / head_dim; ++head) {
      for (std::size_t i = 0; i < half; ++i) {
        for (const std::size_t part : {std::size_t{0}, half}) {
          out += w.data.substr((head * head_dim + part + i) * row_bytes, row_bytes);
        }
      }
    }
    return out;
  }

  static GgufBytes gguf_metadata() {
    GgufBytes file;
    file.string("general.architecture", "llama").u32("llama.block_count", layers).u32("llama.context_length", 128);
    file.u32("llama.embedding_length", C).u32("llama.feed_forward_length", F).u32("llama.attention.head_count", heads);
    file.u32("llama.attention.head_count_kv", kv_heads).f32("llama.rope.freq_base", 10000);
    file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f).u32("llama.rope.dimension_count", head_dim);
    file.u32("tokenizer.ggml.bos_token_id", 1).u32("tokenizer.ggml.eos_token_id", 2);
    return file;
  }
  void add_tensors(GgufBytes& file) const {
    for (const Weight& w : weights) {
      const bool rotary = w.gguf.find("attn_q") != std::string::npos || w.gguf.find("attn_k") != std::string::npos;
      file.tensor(w.gguf, 0, {w.shape.rbegin(), w.shape.rend()}, rotary ? to_neighbours(w) : w.data);
    }
  }
  GgufBytes gguf() const {
    GgufBytes file = gguf_metadata();
    add_tensors(file);
    return file;
  }

  static std::string config() {
    return R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 48, "hidden_act": "silu",
  "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": null,
  "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32", "attention_bias": false})";
  }
  std::vector<TensorView> views() const {
    std::vector<TensorView> all;
    for (const Weight& w : weights) all.push_back({w.hf, Dtype::F32, w.shape, std::as_bytes(std::span(w.data))});
    return all;
  }
  void write_hf(const std::filesystem::path& directory) const {
    write_file(directory / "config.json", config());
    write_safetensors(directory / "model.safetensors", views());
  }
};

} // namespace tenon

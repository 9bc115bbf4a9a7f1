// Model families beyond Llama, read from both sources; tests/goldens/families/make.py made them.
#include "host/formats/hf_config.hpp"
#include "host/formats/source_model.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

std::filesystem::path goldens() { return std::filesystem::path(TENON_TEST_DATA) / "goldens/families"; }

SourceModel from_hf(const std::string& family) { return SourceModel::open(goldens() / family); }
SourceModel from_gguf(const std::string& family) { return SourceModel::open(goldens() / (family + ".gguf")); }

std::vector<float> numbers(const StoredTensor& tensor) {
  std::vector<float> out(tensor.elements());
  dequantise(tensor, out);
  return out;
}

template <class Work>
std::string message_of(Work work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

// The family's config.json with members changed; null erases one.
std::string changed(const std::string& family, const json::object& changes) {
  json::value config = read_json(goldens() / family / "config.json");
  for (const auto& change : changes) {
    if (change.value() == json::value("absent"))
      config.as_object().erase(change.key());
    else
      config.as_object()[change.key()] = change.value();
  }
  return message_of([&] { read_hf_config(config, "config.json"); });
}

} // namespace

TEST_CASE("each family is the same model out of its Hugging Face directory and its gguf file") {
  for (const std::string family : {"mistral", "qwen2", "qwen3", "gpt2"}) {
    CAPTURE(family);
    const SourceModel hf = from_hf(family), gguf = from_gguf(family);
    REQUIRE(hf.tensors().size() == gguf.tensors().size());
    for (const StoredTensor& tensor : hf.tensors()) {
      CAPTURE(tensor.name);
      CHECK(tensor.shape == gguf.at(tensor.name).shape);
      CHECK(numbers(tensor) == numbers(gguf.at(tensor.name)));
    }
    const ModelConfig &a = hf.config(), &b = gguf.config();
    CHECK(a.block == b.block);
    CHECK(std::tuple(a.hidden_size, a.layers, a.heads, a.kv_heads, a.head_dim, a.ffn_size, a.vocab_size) ==
          std::tuple(b.hidden_size, b.layers, b.heads, b.kv_heads, b.head_dim, b.ffn_size, b.vocab_size));
    CHECK(a.context_length == 64);
    CHECK(b.context_length == 64);
    CHECK(static_cast<float>(a.norm_eps) == static_cast<float>(b.norm_eps));
    CHECK(a.rope_theta == b.rope_theta);
    CHECK(a.tie_embeddings == b.tie_embeddings);
    CHECK(a.bos_id == b.bos_id);
    CHECK(a.eos_ids == b.eos_ids);
  }
}

TEST_CASE("each family's blocks have what the family has") {
  const SourceModel mistral = from_hf("mistral"), qwen2 = from_hf("qwen2"), qwen3 = from_hf("qwen3"),
                    gpt2 = from_hf("gpt2");
  using Shape = std::vector<std::size_t>;
  CHECK(mistral.config().block == nn::BlockKind{});
  CHECK(mistral.find("unembed.weight"));
  CHECK(qwen2.at("blocks.1.attention.k.bias").shape == Shape{12});
  CHECK_FALSE(qwen2.find("blocks.1.attention.o.bias"));
  CHECK(qwen3.at("blocks.1.attention.q.weight").shape == Shape{32, 24}); // heads times head_dim is not the width
  CHECK(qwen3.at("blocks.1.attention.q_norm.weight").shape == Shape{8});
  CHECK_FALSE(qwen3.find("blocks.1.attention.q.bias"));
  CHECK(gpt2.at("positions.weight").shape == Shape{64, 24});
  CHECK(gpt2.at("blocks.2.ffn.up.weight").shape == Shape{96, 24});
  CHECK(gpt2.at("blocks.2.ffn.down.bias").shape == Shape{24});
  CHECK(gpt2.at("norm.bias").shape == Shape{24});
  CHECK_FALSE(gpt2.find("blocks.2.ffn.gate.weight"));
}

TEST_CASE("GPT-2's fused and transposed products are taken apart number by number") {
  const SafetensorsFile file(goldens() / "gpt2/model.safetensors");
  const StoredTensor fused = stored_tensor(file, "transformer.h.1.attn.c_attn.weight"); // (in 24, out 72)
  const std::vector<float> all = numbers(fused), k = numbers(from_hf("gpt2").at("blocks.1.attention.k.weight"));
  REQUIRE(fused.shape == std::vector<std::size_t>{24, 72});
  REQUIRE(k.size() == 24 * 24);
  std::size_t wrong = 0;
  for (std::size_t out = 0; out < 24; ++out)
    for (std::size_t in = 0; in < 24; ++in) wrong += k[out * 24 + in] != all[in * 72 + 24 + out];
  CHECK(wrong == 0);
}

TEST_CASE("GPT-2 checkpoints with bare names and stored masks are read like those of today") {
  const Scratch scratch;
  const SafetensorsFile file(goldens() / "gpt2/model.safetensors");
  std::vector<TensorView> views(file.tensors().begin(), file.tensors().end());
  for (TensorView& view : views) view.name = view.name.substr(std::string("transformer.").size());
  const std::vector<std::byte> mask(64 * 64);
  views.push_back({"h.0.attn.bias", Dtype::U8, {1, 1, 64, 64}, mask});
  write_file(scratch.path() / "config.json", read_file(goldens() / "gpt2/config.json"));
  write_safetensors(scratch.path() / "model.safetensors", views);
  const SourceModel bare = SourceModel::open(scratch.path()), today = from_hf("gpt2");
  for (const StoredTensor& tensor : today.tensors()) CHECK(numbers(tensor) == numbers(bare.at(tensor.name)));

  views.push_back(file.at("transformer.wte.weight"));
  write_safetensors(scratch.path() / "model.safetensors", views);
  CHECK_THAT(message_of([&] { SourceModel::open(scratch.path()); }),
             Catch::Contains("transformer.wte.weight is there as wte.weight too"));
}

TEST_CASE("a fused product that is no three products is refused") {
  const Scratch scratch;
  const SafetensorsFile file(goldens() / "gpt2/model.safetensors");
  write_file(scratch.path() / "config.json", read_file(goldens() / "gpt2/config.json"));
  const auto with = [&](std::vector<std::size_t> shape) {
    std::vector<TensorView> views(file.tensors().begin(), file.tensors().end());
    for (TensorView& view : views)
      if (view.name == "transformer.h.0.attn.c_attn.weight") view.shape = shape;
    write_safetensors(scratch.path() / "model.safetensors", views);
    return message_of([&] { SourceModel::open(scratch.path()); });
  };
  REQUIRE(with({24, 72}) == "accepted");
  CHECK_THAT(with({1728}), Catch::Contains("has shape [1728], need a matrix"));
  CHECK_THAT(with({27, 64}), Catch::Contains("need q, k and v one below the other"));
  CHECK_THAT(with({48, 36}), Catch::Contains("h.0.attn.q.weight has shape [12,48]"));
}

TEST_CASE("a family's own switches that change the mathematics are refused by name") {
  CHECK_THAT(changed("mistral", {{"sliding_window", 63}}), Catch::Contains("sliding_window: found 63"));
  CHECK(changed("mistral", {{"sliding_window", nullptr}}) == "accepted");
  CHECK_THAT(changed("mistral", {{"sliding_window", "absent"}, {"max_position_embeddings", 32768}}),
             Catch::Contains("sliding_window: found 4096") && Catch::Contains("default"));
  CHECK_THAT(changed("mistral", {{"num_key_value_heads", "absent"}}), Catch::Contains("num_key_value_heads"));
  CHECK(changed("qwen2", {{"sliding_window", 32}}) == "accepted"); // switched off
  CHECK_THAT(changed("qwen2", {{"sliding_window", 32}, {"use_sliding_window", true}, {"max_window_layers", 1}}),
             Catch::Contains("sliding_window: found 32"));
  CHECK_THAT(changed("qwen2", {{"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}}}),
             Catch::Contains("rope_scaling: found"));
  CHECK_THAT(changed("qwen3", {{"attention_bias", true}}), Catch::Contains("attention_bias: found true"));
  CHECK_THAT(changed("qwen3", {{"head_dim", "absent"}}), Catch::Contains("head_dim"));
  CHECK_THAT(changed("gpt2", {{"activation_function", "gelu"}}),
             Catch::Contains("activation_function: found \"gelu\""));
  CHECK_THAT(changed("gpt2", {{"scale_attn_by_inverse_layer_idx", true}}),
             Catch::Contains("scale_attn_by_inverse_layer_idx: found true"));
  CHECK_THAT(changed("gpt2", {{"scale_attn_weights", false}}), Catch::Contains("scale_attn_weights: found false"));
  CHECK_THAT(changed("gpt2", {{"hidden_size", 24}}), Catch::Contains("hidden_size: found 24"));
  CHECK_THAT(changed("qwen2", {{"n_embd", 24}}), Catch::Contains("n_embd: found 24"));
  CHECK_THAT(changed("qwen2", {{"architectures", {"Qwen2ForSequenceClassification"}}}),
             Catch::Contains("need [\"Qwen2ForCausalLM\"]"));
}

} // namespace tenon

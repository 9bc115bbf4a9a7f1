#include "host/formats/hf.hpp"

#include "host/formats/hf_config.hpp"
#include "host/formats/source_model.hpp"
#include "registry/base/error.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/tiny_llama.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

// The tiny configuration with one member set to a JSON text.
json::value config_with(const std::string& key, const std::string& text) {
  json::value config = parse_json(TinyLlama::config(), "");
  config.as_object()[key] = parse_json(text, "");
  return config;
}

std::string refusal(const std::string& key, const std::string& text) {
  try {
    read_hf_config(config_with(key, text), "config.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
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

} // namespace

TEST_CASE("a field of config.json that changes the mathematics is refused by name and value") {
  CHECK_THAT(refusal("rope_scaling", R"({"rope_type":"llama3","factor":8.0})"),
             Catch::Contains("rope_scaling: found {\"factor\":8.0"));
  CHECK_THAT(refusal("rope_parameters", R"({"rope_type":"yarn","rope_theta":10000.0})"),
             Catch::Contains("rope_parameters"));
  CHECK_THAT(refusal("attention_bias", "true"), Catch::Contains("[config.json] attention_bias: found true"));
  CHECK_THAT(refusal("mlp_bias", "true"), Catch::Contains("mlp_bias: found true"));
  CHECK_THAT(refusal("hidden_act", "\"gelu\""), Catch::Contains("hidden_act: found \"gelu\""));
  CHECK_THAT(refusal("sliding_window", "127"),
             Catch::Contains("sliding_window: found 127") && Catch::Contains("whole context of 128"));
  CHECK_THAT(refusal("partial_rotary_factor", "0.5"), Catch::Contains("partial_rotary_factor: found 0.5"));
  CHECK_THAT(refusal("rope_interleaved", "true"), Catch::Contains("rope_interleaved"));
  CHECK_THAT(refusal("quantization_config", R"({"bits":4})"), Catch::Contains("quantization_config"));
  CHECK_THAT(refusal("logits_scaling", "8.0"), Catch::Contains("logits_scaling: found 8.0"));
  CHECK_THAT(refusal("attn_logit_softcapping", "50.0"), Catch::Contains("attn_logit_softcapping"));
  CHECK_THAT(refusal("num_local_experts", "8"), Catch::Contains("num_local_experts: found 8"));
  CHECK_THAT(refusal("layer_types", R"(["full_attention","sliding_attention"])"), Catch::Contains("layer_types"));
  CHECK_THAT(refusal("auto_map", R"({"AutoModel":"x"})"), Catch::Contains("auto_map"));
  CHECK_THAT(refusal("model_type", "\"phi3\""),
             Catch::Contains("model_type: found \"phi3\", need one of: llama, mistral, qwen2, qwen3, gpt2"));
  CHECK_THAT(refusal("architectures", R"(["LlamaForSequenceClassification"])"), Catch::Contains("architectures"));
}

TEST_CASE("an unknown field of config.json is refused unless it is null, a known harmless one is not") {
  CHECK_THAT(refusal("some_new_idea", "0.25"),
             Catch::Contains("some_new_idea: found 0.25") && Catch::Contains("not known here"));
  CHECK(refusal("some_new_idea", "null") == "accepted");
  CHECK(refusal("sliding_window", "null") == "accepted");
  CHECK(refusal("sliding_window", "128") == "accepted"); // hides nothing from anybody
  CHECK(refusal("rope_scaling", R"({"rope_type":"default"})") == "accepted");
  CHECK(refusal("hidden_act", "\"swish\"") == "accepted");
  CHECK(refusal("partial_rotary_factor", "1.0") == "accepted");
  CHECK(refusal("is_llama_config", "true") == "accepted");
  CHECK(refusal("transformers.js_config", R"({"dtype":"q4"})") == "accepted");
  CHECK(refusal("pretraining_tp", "1") == "accepted");
}

TEST_CASE("config.json has transformers' defaults where it is silent") {
  json::value value = parse_json(TinyLlama::config(), "");
  for (const char* key : {"num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta",
                          "tie_word_embeddings", "bos_token_id", "eos_token_id"}) {
    value.as_object().erase(key);
  }
  const ModelConfig c = read_hf_config(value, "config.json");
  CHECK(c.kv_heads == 4);
  CHECK(c.head_dim == 8);
  CHECK(c.context_length == 2048);
  CHECK(c.norm_eps == 1e-6);
  CHECK(c.rope_theta == 10000);
  CHECK_FALSE(c.tie_embeddings);
  CHECK(c.bos_id == 1);
  CHECK(c.eos_ids == std::vector<std::int64_t>{2});
}

TEST_CASE("config.json may say the rotary base in its newer place, and several end tokens") {
  json::value value = config_with("rope_parameters", R"({"rope_type":"default","rope_theta":500000.0})");
  CHECK_THROWS_WITH(read_hf_config(value, "config.json"), Catch::Contains("another place says"));
  value.as_object().erase("rope_theta");
  value.as_object()["eos_token_id"] = {2, 5};
  value.as_object()["head_dim"] = 16;
  const ModelConfig c = read_hf_config(value, "config.json");
  CHECK(c.rope_theta == 500000);
  CHECK(c.eos_ids == std::vector<std::int64_t>{2, 5});
  CHECK(c.head_dim == 16);
}

TEST_CASE("config.json with a missing or mistyped field says which") {
  json::value value = parse_json(TinyLlama::config(), "");
  value.as_object().erase("hidden_size");
  CHECK_THROWS_WITH(read_hf_config(value, "config.json"), Catch::Contains("\"hidden_size\" is missing"));
  CHECK_THAT(refusal("hidden_size", "\"32\""), Catch::Contains("/hidden_size: found \"32\", need an integer"));
  CHECK_THAT(refusal("num_attention_heads", "0"), Catch::Contains("found 32 and 0, need a multiple"));
}

TEST_CASE("a directory without config or weights is not found, with what is missing") {
  const Scratch scratch;
  CHECK_THAT(message_of([&] { SourceModel::open(scratch.path()); }), Catch::Contains("has no config.json"));
  write_file(scratch.path() / "config.json", TinyLlama::config());
  CHECK_THAT(message_of([&] { SourceModel::open(scratch.path()); }), Catch::Contains("neither model.safetensors nor"));
  CHECK_THAT(message_of([&] { SourceModel::open(scratch.path() / "config.json"); }),
             Catch::Contains("give the directory"));
  CHECK_THAT(message_of([&] { SourceModel::open(scratch.path() / "none.gguf"); }), Catch::Contains("none.gguf"));
}

TEST_CASE("a sharded directory is the same model as a whole one") {
  const Scratch scratch;
  const TinyLlama tiny;
  write_file(scratch.path() / "config.json", TinyLlama::config());
  const auto views = tiny.views();
  json::object map;
  for (std::size_t i = 0; i < views.size(); ++i) map[views[i].name] = i < 7 ? "one.safetensors" : "two.safetensors";
  write_safetensors(scratch.path() / "one.safetensors", std::span(views).first(7));
  write_safetensors(scratch.path() / "two.safetensors", std::span(views).subspan(7));
  const auto index = scratch.path() / "model.safetensors.index.json";
  const auto write_index = [&](const json::object& weight_map) {
    write_file(index, pretty_json(json::object{{"metadata", {{"total_size", 1}}}, {"weight_map", weight_map}}));
  };
  write_index(map);
  CHECK(SourceModel::open(scratch.path()).tensors().size() == views.size());
  CHECK_FALSE(scan_hf_directory(scratch.path()).tokenizer);

  const auto refused = [&](const std::string& tensor, const json::value& shard) {
    json::object changed = map;
    changed[tensor] = shard;
    write_index(changed);
    return message_of([&] { SourceModel::open(scratch.path()); });
  };
  for (const char* escape :
       {"../one.safetensors", "/etc/x.safetensors", "a/one.safetensors", "..", "a\\b.safetensors", ""}) {
    CHECK_THAT(refused(views[0].name, escape), Catch::Contains("need a plain file name"));
  }
  CHECK_THAT(refused(views[0].name, "two.safetensors"),
             Catch::Contains("is in one.safetensors, the index says two.safetensors"));
  CHECK_THAT(refused("ghost", "two.safetensors"), Catch::Contains("ghost is in no shard"));
  CHECK_THAT(refused(views[0].name, "three.safetensors"), Catch::Contains("three.safetensors"));
  CHECK_THAT(refused(views[0].name, 7), Catch::Contains("need a string"));
  map.erase(views[3].name);
  write_index(map);
  CHECK_THAT(message_of([&] { SourceModel::open(scratch.path()); }), Catch::Contains("the index says nothing"));
}

TEST_CASE("a tied model may store its unembedding again, if it is the same") {
  const Scratch scratch;
  const TinyLlama tiny;
  write_file(scratch.path() / "config.json", TinyLlama::config());
  auto views = tiny.views();
  views.push_back(views[0]);
  views.back().name = "lm_head.weight";
  write_safetensors(scratch.path() / "model.safetensors", views);
  CHECK(SourceModel::open(scratch.path()).find("unembed.weight") == nullptr);

  std::string other = tiny.weights[0].data;
  other[0] ^= 1;
  views.back().bytes = std::as_bytes(std::span(other));
  write_safetensors(scratch.path() / "model.safetensors", views);
  CHECK_THAT(message_of([&] { SourceModel::open(scratch.path()); }), Catch::Contains("lm_head.weight differs"));

  write_file(scratch.path() / "config.json", pretty_json(config_with("tie_word_embeddings", "false")));
  const SourceModel untied = SourceModel::open(scratch.path());
  CHECK(std::ranges::equal(untied.at("unembed.weight").bytes, std::as_bytes(std::span(other))));
}

TEST_CASE("tensors of a Hugging Face model that nobody knows are refused, stored rotary buffers are not") {
  const Scratch scratch;
  const TinyLlama tiny;
  write_file(scratch.path() / "config.json", TinyLlama::config());
  const std::vector<float> four{1, 2, 3, 4};
  auto views = tiny.views();
  views.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", Dtype::F32, {4}, std::as_bytes(std::span(four))});
  write_safetensors(scratch.path() / "model.safetensors", views);
  CHECK_NOTHROW(SourceModel::open(scratch.path()));
  views.push_back({"model.layers.0.self_attn.q_proj.bias", Dtype::F32, {4}, std::as_bytes(std::span(four))});
  write_safetensors(scratch.path() / "model.safetensors", views);
  CHECK_THAT(message_of([&] { SourceModel::open(scratch.path()); }), Catch::Contains("q_proj.bias"));
}

} // namespace tenon

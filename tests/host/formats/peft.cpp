#include "host/formats/peft.hpp"

#include "registry/base/error.hpp"
#include "tests/support/mutate_json.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>
#include <cmath>

namespace tenon {
namespace {

const char* const kConfig =
    R"({"peft_type": "LORA", "base_model_name_or_path": "acme/base", "r": 2, "lora_alpha": 6, "bias": "none",
  "use_rslora": false, "init_lora_weights": true, "use_dora": false, "fan_in_fan_out": true, "lora_dropout": 0.1,
  "target_modules": ["q_proj", "mlp.up_proj"], "rank_pattern": {"layers.1.self_attn.q_proj": 3},
  "alpha_pattern": {"layers\\.[0-9]\\.mlp\\.up_proj": 8}, "layer_replication": null, "loftq_config": {}})";

PeftConfig config_with(const std::string& key, const json::value& value) {
  json::value config = parse_json(kConfig, "test");
  config.as_object()[key] = value;
  return read_peft_config(config, "adapter_config.json");
}

using Shapes = std::map<std::string, std::vector<std::size_t>>;

const Shapes kShapes = {{"model.layers.0.self_attn.q_proj.lora_A.weight", {2, 8}},
                        {"model.layers.0.self_attn.q_proj.lora_B.weight", {8, 2}},
                        {"model.layers.1.self_attn.q_proj.lora_A.weight", {3, 8}},
                        {"model.layers.1.self_attn.q_proj.lora_B.weight", {8, 3}},
                        {"model.layers.1.mlp.up_proj.lora_A.weight", {2, 8}},
                        {"model.layers.1.mlp.up_proj.lora_B.weight", {16, 2}},
                        {"lm_head.weight", {5, 8}}};

std::string file_of(const Shapes& shapes) {
  const Scratch scratch;
  const std::vector<float> numbers(256, 0.5f);
  std::vector<TensorView> views;
  for (const auto& [name, shape] : shapes) {
    std::size_t count = 1;
    for (const std::size_t extent : shape) count *= extent;
    views.push_back({"base_model.model." + name, Dtype::F32, shape, std::as_bytes(std::span(numbers).first(count))});
  }
  write_safetensors(scratch.path() / "f", views);
  return read_file(scratch.path() / "f");
}

PeftAdapter adapter_of(const PeftConfig& config, const std::string& bytes) {
  return PeftAdapter(config, SafetensorsFile(std::as_bytes(std::span(bytes)), "adapter_model.safetensors"));
}

std::string refusal_of(const Shapes& shapes, Code code) {
  const std::string bytes = file_of(shapes);
  try {
    adapter_of(read_peft_config(parse_json(kConfig, "test"), "adapter_config.json"), bytes);
  } catch (const Error& error) {
    CHECK(error.code == code);
    return error.what();
  }
  return "";
}

} // namespace

TEST_CASE("an adapter's products come with the rank and scale that config and patterns give them") {
  const std::string bytes = file_of(kShapes);
  const PeftAdapter adapter = adapter_of(config_with("revision", nullptr), bytes);
  REQUIRE(adapter.products().size() == 3);
  CHECK(adapter.products()[0].module == "model.layers.0.self_attn.q_proj");
  CHECK(adapter.products()[0].scale == 3.0);
  CHECK(adapter.products()[1].module == "model.layers.1.mlp.up_proj");
  CHECK(adapter.products()[1].scale == 4.0);
  CHECK(adapter.products()[2].rank == 3);
  CHECK(adapter.products()[2].scale == 2.0);
  CHECK(adapter.others() == std::vector<std::string>{"lm_head.weight"});
  CHECK(adapter.config().base_model == "acme/base");
  const PeftAdapter stabilised = adapter_of(config_with("use_rslora", true), bytes);
  CHECK(stabilised.products()[2].scale == Approx(6 / std::sqrt(3.0)));
}

TEST_CASE("a pattern matches a whole end of a module's name, and the first that does decides") {
  const std::string bytes = file_of(kShapes);
  const auto scale = [&](const json::object& patterns) {
    return adapter_of(config_with("alpha_pattern", patterns), bytes).products()[0].scale;
  };
  CHECK(scale({{"q_proj", 10}, {"self_attn.q_proj", 20}}) == 5.0);
  CHECK(scale({{"proj", 10}}) == 3.0); // "q_proj" ends in it, but not after a dot
  CHECK(scale({{"model.layers.0.self_attn.q_proj", 10}}) == 5.0);
  CHECK_THROWS_WITH(scale({{"q_proj(", 10}}), Catch::Contains("q_proj("));
  CHECK_THROWS_WITH(scale({{"(([a-z0-9._]+)+)+[A-Z]", 10}}), Catch::Contains("too long"));
}

TEST_CASE("options that change what an adapter computes are refused by name") {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, json::value>>{{"use_dora", true},
                                                        {"bias", "all"},
                                                        {"init_lora_weights", "pissa"},
                                                        {"init_lora_weights", "pissa_niter_16"},
                                                        {"init_lora_weights", "olora"},
                                                        {"init_lora_weights", "loftq"},
                                                        {"lora_bias", true},
                                                        {"layer_replication", json::array{json::array{0, 2}}},
                                                        {"use_qalora", true},
                                                        {"alora_invocation_tokens", json::array{1, 2}},
                                                        {"target_parameters", json::array{"experts"}},
                                                        {"an_option_of_next_year", 3},
                                                        {"peft_type", "LOHA"}}) {
    INFO(key);
    try {
      config_with(key, value);
      FAIL("was read");
    } catch (const Error& error) {
      CHECK(error.code == Code::incompatible);
      CHECK_THAT(error.message, Catch::Contains(key + ": found " + canonical_json(value)));
    }
  }
  for (const char* same : {"gaussian", "orthogonal", "eva"}) CHECK_NOTHROW(config_with("init_lora_weights", same));
  CHECK_NOTHROW(config_with("use_dora", nullptr));
}

TEST_CASE("numbers that make no adapter are refused with their place") {
  CHECK_THROWS_WITH(config_with("r", 0), Catch::Contains("/r") && Catch::Contains("rank 0"));
  CHECK_THROWS_WITH(config_with("r", "8"), Catch::Contains("/r"));
  CHECK_THROWS_WITH(config_with("lora_alpha", -1), Catch::Contains("alpha -1"));
  CHECK_THROWS_WITH(config_with("rank_pattern", json::object{{"q_proj", 1.5}}), Catch::Contains("rank_pattern/q_proj"));
}

TEST_CASE("halves that are missing and ranks that disagree are refused, both sides named") {
  Shapes shapes = kShapes;
  shapes.erase("model.layers.1.mlp.up_proj.lora_B.weight");
  CHECK_THAT(refusal_of(shapes, Code::integrity),
             Catch::Contains("model.layers.1.mlp.up_proj: found lora_A, its other half lora_B is missing"));
  shapes = kShapes;
  shapes["model.layers.0.self_attn.q_proj.lora_B.weight"] = {8, 3};
  CHECK_THAT(refusal_of(shapes, Code::integrity), Catch::Contains("(2, 8)") && Catch::Contains("(8, 3)") &&
                                                      Catch::Contains("adapter_config.json says rank 2"));
  shapes["model.layers.0.self_attn.q_proj.lora_B.weight"] = {16};
  CHECK_THAT(refusal_of(shapes, Code::integrity), Catch::Contains("(16)"));
}

TEST_CASE("tensors that the configuration does not name are refused: PEFT would leave them out without a word") {
  const std::string bytes = file_of(kShapes);
  const auto refused = [&](const std::string& key, const json::value& value) {
    try {
      adapter_of(config_with(key, value), bytes);
    } catch (const Error& error) {
      CHECK(error.code == Code::integrity);
      CHECK_THAT(error.remedy, Catch::Contains("save the adapter again"));
      return error.message;
    }
    return std::string();
  };
  CHECK_THAT(refused("target_modules", json::array{"q_proj", "proj"}),
             Catch::Contains("layers.1.mlp.up_proj") && Catch::Contains("target_modules [q_proj, proj]"));
  CHECK_THAT(refused("layers_to_transform", json::array{1, 11}),
             Catch::Contains("layers.0.self_attn.q_proj") && Catch::Contains("layers_to_transform [1, 11]"));
  CHECK_THAT(refused("layers_to_transform", 1), Catch::Contains("layers.0.self_attn.q_proj"));
  for (const json::value& named : {json::value(nullptr), json::value("all-linear"), json::value(json::array{})})
    CHECK(refused("target_modules", named) == "");
  CHECK(refused("layers_to_transform", json::array{0, 1}) == "");
}

TEST_CASE("a folder without an adapter, or with one as a pickle, is refused with what to do") {
  const Scratch scratch;
  CHECK_THROWS_WITH(PeftAdapter::open(scratch.path() / "none"), Catch::Contains("no such folder"));
  write_file(scratch.path() / "adapter_config.json", kConfig);
  write_file(scratch.path() / "adapter_model.bin", "pickle");
  CHECK_THROWS_WITH(PeftAdapter::open(scratch.path()),
                    Catch::Contains("adapter_model.bin") && Catch::Contains("safe_serialization=True"));
}

TEST_CASE("a damaged adapter is read or refused, every number of it readable") {
  const std::string file = file_of(kShapes);
  Mutator mutator(11);
  const AllocationWatch watch;
  int read = 0, refused = 0;
  for (int i = 0; i < 4000; ++i) {
    try {
      const std::string text = i % 3 == 0   ? mutator.mutate(std::string(kConfig))
                               : i % 3 == 1 ? mutate_json(mutator, kConfig)
                                            : kConfig;
      const std::string bytes = i % 3 == 2 ? mutator.mutate(file) : file;
      const PeftAdapter adapter = adapter_of(read_peft_config(parse_json(text, "fuzz"), "fuzz"), bytes);
      for (const PeftProduct& product : adapter.products())
        for (const StoredTensor* half : {&product.a, &product.b}) {
          std::vector<float> numbers(half->elements());
          dequantise(*half, numbers);
        }
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(read > 100);
  CHECK(refused > 1000);
  CHECK(watch.largest() < 1000000);
}

} // namespace tenon

// A random model of 4 layers, width 32, cut 1:3, byte tokenizer; and compositions over it with the test program's own
// experts. Everything is the same from run to run. For tests that need no registry.
#pragma once

#include "host/composition/composition.hpp"
#include "host/model/random.hpp"
#include "registry/base/files.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/stored_weights.hpp"
#include "tests/support/test_experts.hpp"

#include <ATen/ATen.h>

namespace tenon::test {

inline at::Tensor normal(const std::string& name, at::IntArrayRef shape, double deviation, std::uint64_t seed = 0) {
  at::Tensor out = at::empty(shape);
  RandomStream(seed, name).normal({out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
  return out.mul_(deviation);
}

inline ModelShape tiny_shape() {
  ModelShape shape;
  shape.width = 32, shape.layers = 4, shape.heads = 4, shape.kv_heads = 2, shape.head_dim = 8, shape.ffn_width = 96;
  shape.vocab = 260;
  shape.tied = true;
  return shape;
}

// A block's weights by name, as the model names them.
inline at::Tensor tiny_weight(const std::string& name, at::IntArrayRef shape) {
  if (shape.size() < 2) return at::ones(shape);
  return normal(name, shape, name == "embed.weight" ? 1.0 : 1.0 / std::sqrt(static_cast<double>(shape[1])));
}

// chat_template: Jinja source to put into the tokenizer. format: of its products; its weights are stored as float32, or
// in blocks where that says so.
inline std::shared_ptr<const Model> tiny_model(const std::filesystem::path& folder, std::string chat_template = "",
                                               Format format = Format::float32) {
  const ModelShape s = tiny_shape();
  std::vector<std::pair<std::string, at::Tensor>> weights;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape) {
    weights.emplace_back(name, tiny_weight(name, shape));
  };
  add("embed.weight", {s.vocab, s.width});
  add("norm.weight", {s.width});
  for (const std::int64_t i : {0, 3}) {
    const std::string block = "blocks." + std::to_string(i) + ".";
    const std::int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    add(block + "attention_norm.weight", {s.width});
    add(block + "ffn_norm.weight", {s.width});
    add(block + "attention.q.weight", {q, s.width});
    add(block + "attention.k.weight", {kv, s.width});
    add(block + "attention.v.weight", {kv, s.width});
    add(block + "attention.o.weight", {s.width, q});
    add(block + "ffn.gate.weight", {s.ffn_width, s.width});
    add(block + "ffn.up.weight", {s.ffn_width, s.width});
    add(block + "ffn.down.weight", {s.width, s.ffn_width});
  }
  if (format == Format::stored)
    write_stored_weights(folder / "weights.safetensors", weights);
  else
    write_weights(folder / "weights.safetensors", weights);
  TokenizerData data = byte_tokenizer();
  data.chat_template = std::move(chat_template);
  const Tokenizer tokenizer(data);
  write_file(folder / "tokenizer.json", tokenizer.json());
  write_statistics(folder / "normalization.safetensors", {normal("mean", {s.width}, 0.1), at::full({s.width}, 1.5)});

  ModelManifest manifest;
  manifest.name = "tiny";
  manifest.version = {1, 0, 0, "", ""};
  manifest.family = "llama";
  manifest.layers = s.layers, manifest.vocab = s.vocab;
  manifest.config = shape_to_json(s);
  manifest.config["context_length"] = 128;
  manifest.contract.cut = {1, 3};
  manifest.contract.width = s.width;
  manifest.contract.tokenizer_digest = tokenizer.digest();
  const ModelFiles files{folder / "weights.safetensors",
                         folder / "tokenizer.json",
                         folder / "normalization.safetensors",
                         {},
                         "sha256:tiny",
                         format};
  return std::make_shared<const Model>(manifest, files, folder / "cache");
}

struct ExpertKind {
  std::string name, architecture;
  json::object config = {};
  std::string context = "causal";
  bool uses_base = false;
};

inline ExpertKind causal(const std::string& name) { return {name, "test.causal", middle_config(tiny_shape(), 1, 3)}; }
inline ExpertKind token(const std::string& name) { return {name, "test.token", {{"inner", 32}}, "token", true}; }
inline ExpertKind recurrent(const std::string& name) { return {name, "test.recurrent", {}, "recurrent", true}; }
// A window of 4 rows.
inline ExpertKind window(const std::string& name) {
  return {name, "test.window", {{"first", 2}, {"second", 3}}, "window(4)", true};
}
inline ExpertKind window_rows(const std::string& name, std::int64_t rows) {
  return {name, "test.window_rows", {{"window", rows}}, "window(" + std::to_string(rows) + ")"};
}
inline ExpertKind faulty(const std::string& name, const std::string& fault, int after = 0) {
  return {name, "test.faulty", {{"fault", fault}, {"after", after}}, "causal", true};
}

// An expert with random weights (streams named after it) and a random row of this norm and bias. bound: told of each
// weight, by name, before the expert is prepared.
inline ExpertPackage tiny_expert(const Model& model, const ExpertKind& kind, double row_norm = 1.0,
                                 double row_bias = 0.0,
                                 const std::function<void(const std::string&, at::Tensor)>& bound = {}) {
  ExpertPackage package;
  package.entry.name = package.manifest.name = kind.name;
  package.entry.version = package.manifest.version = {1, 0, 0, "", ""};
  package.manifest.architecture = kind.architecture;
  package.manifest.config = kind.config;
  const json::object values = {{"config", kind.config},
                               {"model", {{"width", model.shape().width}, {"first", 1}, {"last", 3}}}};
  package.expert = std::make_shared<LoadedExpert>(
      plugin(), ExpertSpec{kind.name + " 1.0.0", kind.architecture, values, model.statistics().mean_C,
                           model.statistics().deviation_C, ExpertContext::parse(kind.context), kind.uses_base});
  for (const ExpertParameter& parameter : package.expert->parameters()) {
    const at::IntArrayRef shape = parameter.tensor.sizes();
    const at::Tensor weight = shape.size() < 2 ? at::ones(shape)
                                               : normal(kind.name + "/" + parameter.name, shape,
                                                        1.0 / std::sqrt(static_cast<double>(shape[1])));
    package.expert->bind(parameter.name, weight);
    if (bound) bound(parameter.name, weight);
  }
  package.expert->prepare(TENON_INFERENCE);
  at::Tensor r_C = normal(kind.name + "/row", {model.shape().width}, 1.0);
  package.row = Row{r_C * (row_norm / r_C.norm().item<double>()), row_bias};
  return package;
}

// The base and then these; the base takes no part in routing, so it has no row.
inline std::vector<ExpertPackage> tiny_experts(const Model& model, const std::vector<ExpertKind>& kinds,
                                               double row_norm = 1.0) {
  std::vector<ExpertPackage> out = {tiny_expert(model, causal("base"))};
  out.front().row.reset();
  for (const ExpertKind& kind : kinds) out.push_back(tiny_expert(model, kind, row_norm));
  return out;
}

struct Tiny {
  Scratch scratch;
  std::shared_ptr<const Model> model = tiny_model(scratch.path());

  // A new composition with experts of its own.
  std::unique_ptr<Composition> compose(const std::vector<ExpertKind>& kinds, Routing routing = {}, double prior = 0.0,
                                       Composition::Options options = {}) const {
    return std::make_unique<Composition>(model, tiny_experts(*model, kinds), routing, prior, options);
  }
};

inline std::vector<std::int32_t> tokens(const std::string& name, std::size_t count, std::uint64_t seed = 0) {
  const RandomStream random(seed, name);
  std::vector<std::int32_t> out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::int32_t>(random.below(i, 256));
  return out;
}

inline at::Tensor tensor_of(const std::vector<std::int32_t>& ids) {
  at::Tensor out = at::empty({static_cast<std::int64_t>(ids.size())}, at::kLong);
  std::copy(ids.begin(), ids.end(), out.data_ptr<std::int64_t>());
  return out;
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

} // namespace tenon::test

// Families beyond Llama compute what transformers computes; tests/goldens/families/make.py made models and numbers.
#include "host/loading/native.hpp"
#include "host/model/import.hpp"
#include "host/model/rejoin.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>
#include <tenon/nn/transformer.hpp>

#include <catch2/catch.hpp>
#include <unordered_map>

namespace tenon {
namespace {

const std::vector<std::string> kFamilies = {"mistral", "qwen2", "qwen3", "gpt2"};
constexpr Cut kCut{1, 2};

std::filesystem::path goldens() { return std::filesystem::path(TENON_TEST_DATA) / "goldens/families"; }

// A model with every weight as float32 in memory.
struct InMemory {
  WholeModel model;
  std::unordered_map<std::string, at::Tensor> weights;

  explicit InMemory(const std::filesystem::path& source) : model(read_whole_model(source)) {
    for (const StoredTensor& stored : model.tensors) {
      at::Tensor tensor = at::empty(std::vector<std::int64_t>(stored.shape.begin(), stored.shape.end()));
      dequantise(stored, {tensor.data_ptr<float>(), stored.elements()});
      weights.emplace(stored.name, tensor);
    }
  }
  WeightSource source() const {
    return [this](const std::string& name) { return weights.at(name); };
  }
};

struct Reference {
  explicit Reference(const std::string& family) : file(goldens() / (family + ".reference.safetensors")) {}
  at::Tensor at(const char* name, at::ScalarType type) const {
    const TensorView& view = file.at(name);
    return at::from_blob(const_cast<std::byte*>(view.bytes.data()),
                         std::vector<std::int64_t>(view.shape.begin(), view.shape.end()), type);
  }
  SafetensorsFile file;
};

float largest(const at::Tensor& difference) { return difference.abs().max().item<float>(); }

ModuleLayout middle_layout(const ModelShape& shape) {
  StateLayout state;
  nn::Transformer({shape.width, kCut.last - kCut.first, shape.heads, shape.kv_heads, shape.head_dim, shape.ffn_width,
                   shape.norm_eps, shape.rope_theta, shape.block})
      .add_state(state);
  ModuleLayout out;
  for (const auto& entry : state.entries())
    out.push_back({entry.name, entry.kind == TENON_STATE_PER_POSITION, entry.shape});
  return out;
}

} // namespace

TEST_CASE("each family's logits agree with transformers to 1e-4, cut and joined again, from both sources") {
  for (const std::string& family : kFamilies)
    for (const std::string& source : {family, family + ".gguf"}) {
      CAPTURE(source);
      const InMemory whole(goldens() / source);
      const Reference reference(family);
      const Batch batch = Batch::whole(reference.at("tokens", at::kInt).unsqueeze(0));
      const at::Tensor joined = rejoined_logits(whole.model.shape, kCut, whole.source(), batch);
      CHECK(at::equal(joined, uncut_logits(whole.model.shape, whole.source(), batch)));
      CHECK(largest(joined - reference.at("logits", at::kFloat)) <= 1e-4f);
    }
}

TEST_CASE("each family writes the same greedy tokens as transformers, one step at a time over kept state") {
  at::NoGradGuard no_grad;
  for (const std::string& family : kFamilies) {
    CAPTURE(family);
    const InMemory whole(goldens() / family);
    const Reference reference(family);
    const at::Tensor tokens = reference.at("tokens", at::kInt), greedy = reference.at("greedy", at::kInt);
    const Trunk trunk(whole.model.shape, kCut.first, whole.source());
    const Head head(whole.model.shape, kCut.last, whole.source());
    const auto middle = bind_layers(whole.model.shape, kCut.first, kCut.last, whole.source());
    Sequence sequence{ModuleState(trunk.layout()), ModuleState(head.layout()), {}, RowBuffer(), RowBuffer()};
    sequence.experts.emplace_back(middle_layout(whole.model.shape));

    std::vector<std::int32_t> next(tokens.data_ptr<std::int32_t>(), tokens.data_ptr<std::int32_t>() + 8), written;
    while (written.size() < 16) {
      const Batch batch = Batch::next(sequence, next);
      const at::Tensor h = trunk.forward(batch);
      sequence.h.append(h);
      const auto spans = batch.spans([](Sequence& s) -> ModuleState& { return s.experts[0]; });
      const at::Tensor logits = head.forward(middle->forward(h, spans), batch);
      written.push_back(static_cast<std::int32_t>(logits.select(0, logits.size(0) - 1).argmax().item<std::int64_t>()));
      next = {written.back()};
    }
    CHECK(written == std::vector<std::int32_t>(greedy.data_ptr<std::int32_t>(), greedy.data_ptr<std::int32_t>() + 16));
  }
}

TEST_CASE("each family trains through its head as it infers") {
  for (const std::string& family : kFamilies) {
    CAPTURE(family);
    const InMemory whole(goldens() / family);
    const Reference reference(family);
    const Batch batch = Batch::whole(reference.at("tokens", at::kInt).view({2, 12}));
    const at::Tensor h = Trunk(whole.model.shape, kCut.first, whole.source()).forward(batch);
    const Head head(whole.model.shape, kCut.first, whole.source());
    const at::Tensor m = h.clone().set_requires_grad(true);
    const at::Tensor features = head.features_with_gradient(m, batch);
    features.sum().backward();
    CHECK(largest(m.grad()) > 0);
    CHECK(largest(features.detach() - head.features(h, batch)) <= 1e-4f);
  }
}

TEST_CASE("a model's shape survives its manifest, and Llama's is written as it always was") {
  for (const std::string& family : kFamilies) {
    CAPTURE(family);
    const ModelShape shape = read_whole_model(goldens() / family).shape;
    ModelShape back = shape_from_json(shape_to_json(shape), "model.json");
    if (!shape.block.rotary) back.rope_theta = shape.rope_theta; // which counts for nothing
    CHECK(back == shape);
  }
  ModelShape llama;
  CHECK(canonical_json(shape_to_json(llama)) ==
        R"({"ffn_width":0,"head_dim":0,"heads":0,"kv_heads":0,"layers":0,"norm_eps":1e-05,"rope_theta":10000.0,)"
        R"("tied_embedding":false,"vocab":0,"width":0})");
  CHECK_THROWS_WITH(shape_from_json({{"width", 1},
                                     {"layers", 1},
                                     {"heads", 1},
                                     {"kv_heads", 1},
                                     {"head_dim", 2},
                                     {"ffn_width", 1},
                                     {"vocab", 1},
                                     {"norm_eps", 1e-5},
                                     {"tied_embedding", true},
                                     {"rope_theta", 1e4},
                                     {"norm", "batch"}},
                                    "model.json"),
                    Catch::Contains("/norm"));
}

TEST_CASE("a configuration that no kernel could trust, or that its weights do not have, is refused with both sides") {
  const InMemory whole(goldens() / "mistral");
  const json::object good = shape_to_json(whole.model.shape);
  const auto with = [&](const char* field, std::int64_t value) {
    json::object config = good;
    config[field] = value;
    return shape_from_json(config, "model.json");
  };
  CHECK_NOTHROW(shape_from_json(good, "model.json"));
  for (const char* field : {"width", "layers", "heads", "kv_heads", "head_dim", "ffn_width", "vocab"})
    for (const std::int64_t value : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1} << 40})
      CHECK_THROWS_WITH(with(field, value), Catch::Contains("need 1 to"));
  CHECK_THROWS_WITH(with("kv_heads", whole.model.shape.heads + 1), Catch::Contains("need a multiple"));
  CHECK_THROWS_WITH(with("head_dim", 7), Catch::Contains("an even width"));
  for (const char* field : {"ffn_width", "vocab", "head_dim"}) {
    const ModelShape shape = with(field, 2);
    CAPTURE(field);
    CHECK_THROWS_WITH(Trunk(shape, kCut.first, whole.source()), Catch::Contains("its configuration needs"));
  }
}

TEST_CASE("a text beyond the learned positions is refused with both numbers") {
  const InMemory whole(goldens() / "gpt2");
  const Trunk trunk(whole.model.shape, kCut.first, whole.source());
  CHECK_NOTHROW(trunk.forward(Batch::whole(at::zeros({1, 64}, at::kLong))));
  CHECK_THROWS_WITH(trunk.forward(Batch::whole(at::zeros({1, 65}, at::kLong))),
                    Catch::Contains("65 tokens") && Catch::Contains("64 positions"));
}

} // namespace tenon

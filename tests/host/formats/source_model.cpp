#include "host/formats/source_model.hpp"

#include "host/formats/gguf.hpp"
#include "registry/base/error.hpp"
#include "tests/support/mutate.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/tiny_llama.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

namespace tenon {
namespace {

SourceModel open_bytes(const std::vector<std::byte>& bytes) {
  return SourceModel::open_gguf(std::make_shared<const GgufFile>(bytes, "tiny.gguf"));
}

std::string refusal(GgufBytes file) {
  TinyLlama().add_tensors(file);
  const auto bytes = file.bytes();
  try {
    open_bytes(bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

} // namespace

TEST_CASE("a gguf file and a Hugging Face directory of the same weights are the same model") {
  const Scratch scratch;
  const TinyLlama tiny;
  tiny.write_hf(scratch.path());
  const auto bytes = tiny.gguf().bytes();
  const SourceModel gguf = open_bytes(bytes), hf = SourceModel::open(scratch.path());
  REQUIRE(gguf.tensors().size() == tiny.weights.size());
  REQUIRE(hf.tensors().size() == tiny.weights.size());
  for (const StoredTensor& tensor : hf.tensors()) {
    CAPTURE(tensor.name);
    CHECK(std::ranges::equal(tensor.bytes, gguf.at(tensor.name).bytes));
    CHECK(tensor.shape == gguf.at(tensor.name).shape);
  }
  for (const SourceModel* model : {&gguf, &hf}) {
    const ModelConfig& c = model->config();
    CHECK(c.hidden_size == 32);
    CHECK(c.layers == 2);
    CHECK(c.heads == 4);
    CHECK(c.kv_heads == 2);
    CHECK(c.head_dim == 8);
    CHECK(c.ffn_size == 64);
    CHECK(c.vocab_size == 48);
    CHECK(c.context_length == 128);
    CHECK(static_cast<float>(c.norm_eps) == 1e-5f);
    CHECK(c.rope_theta == 10000);
    CHECK(c.tie_embeddings);
    CHECK(c.bos_id == 1);
    CHECK(c.eos_ids == std::vector<std::int64_t>{2});
  }
  CHECK(gguf.gguf() != nullptr);
  CHECK(hf.directory() == scratch.path());
  CHECK(hf.find("unembed.weight") == nullptr);
  CHECK_THROWS_AS(hf.at("unembed.weight"), Error);
}

TEST_CASE("a moved source model keeps its tensors") {
  const auto bytes = TinyLlama().gguf().bytes();
  SourceModel first = open_bytes(bytes);
  const SourceModel second = std::move(first);
  CHECK(second.at("blocks.1.attention.q.weight").elements() == 1024);
  for (const StoredTensor& tensor : second.tensors()) touch(tensor.bytes);
}

TEST_CASE("rows of quantised q and k are put in order whole, no block changed") {
  GgufBytes file = TinyLlama::gguf_metadata();
  const TinyLlama tiny;
  std::string rows; // 32 rows of one Q4_1 block, each full of its own number
  for (int row = 0; row < 32; ++row) rows += std::string(20, static_cast<char>(row));
  for (const auto& w : tiny.weights) {
    const bool q = w.gguf == "blk.0.attn_q.weight";
    file.tensor(w.gguf, q ? 3 : 0, {w.shape.rbegin(), w.shape.rend()}, q ? rows : w.data);
  }
  const auto bytes = file.bytes();
  const SourceModel model = open_bytes(bytes);
  const StoredTensor& q = model.at("blocks.0.attention.q.weight");
  REQUIRE(q.type == nn::BlockType::Q4_1);
  std::vector<int> order;
  for (std::size_t row = 0; row < 32; ++row) {
    order.push_back(std::to_integer<int>(q.bytes[row * 20]));
    CHECK(std::all_of(q.bytes.begin() + row * 20, q.bytes.begin() + row * 20 + 20,
                      [&](auto b) { return b == q.bytes[row * 20]; }));
  }
  CHECK(std::vector<int>(order.begin(), order.begin() + 10) == std::vector<int>{0, 2, 4, 6, 1, 3, 5, 7, 8, 10});
}

TEST_CASE("a gguf key that changes the mathematics is refused by name and value") {
  REQUIRE(refusal(TinyLlama::gguf_metadata()) == "accepted");
  const auto with = [](auto change) {
    GgufBytes file = TinyLlama::gguf_metadata();
    change(file);
    return refusal(file);
  };
  CHECK_THAT(with([](auto& f) { f.string("llama.rope.scaling.type", "yarn"); }),
             Catch::Contains("llama.rope.scaling.type: found \"yarn\""));
  CHECK_THAT(with([](auto& f) { f.f32("llama.rope.scaling.factor", 4); }),
             Catch::Contains("llama.rope.scaling.factor: found 4"));
  CHECK_THAT(with([](auto& f) { f.u32("llama.expert_count", 8); }), Catch::Contains("llama.expert_count: found 8"));
  CHECK_THAT(with([](auto& f) { f.u32("llama.attention.sliding_window", 64); }),
             Catch::Contains("llama.attention.sliding_window: found 64") && Catch::Contains("whole context of 128"));
  CHECK_THAT(with([](auto& f) { f.f32("llama.attn_logit_softcapping", 50); }),
             Catch::Contains("llama.attn_logit_softcapping"));
  CHECK_THAT(with([](auto& f) { f.f32("llama.logit_scale", 0.5f); }), Catch::Contains("llama.logit_scale: found 0.5"));
  CHECK_THAT(with([](auto& f) { f.boolean("llama.use_parallel_residual", true); }), Catch::Contains("found true"));
  CHECK_THAT(with([](auto& f) { f.u32("llama.something_new", 1); }), Catch::Contains("llama.something_new"));
  CHECK_THAT(with([](auto& f) { f.u32("llama.attention.key_length", 16); }),
             Catch::Contains("llama.rope.dimension_count"));
  CHECK_THAT(with([](auto& f) { f.string("general.type", "adapter"); }), Catch::Contains("general.type"));
  CHECK_THAT(with([](auto& f) { f.u32("split.count", 3); }), Catch::Contains("split.count"));
  CHECK(with([](auto& f) { f.string("llama.rope.scaling.type", "none").u32("llama.expert_count", 0); }) == "accepted");
  CHECK(with([](auto& f) { f.u32("llama.attention.sliding_window", 128); }) == "accepted");
  CHECK_THAT(refusal(GgufBytes().string("general.architecture", "phi3")),
             Catch::Contains("found \"phi3\", need one of: llama, qwen2, qwen3, gpt2"));
}

TEST_CASE("a gguf tensor that is missing, unknown or misshapen is refused by name") {
  const auto with = [](auto change) {
    TinyLlama tiny;
    change(tiny.weights);
    GgufBytes file = tiny.gguf();
    const auto bytes = file.bytes();
    try {
      open_bytes(bytes);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  REQUIRE(with([](auto&) {}) == "accepted");
  CHECK_THAT(with([](auto& w) { w.erase(w.begin() + 5); }), Catch::Contains("blk.0.attn_output.weight is missing"));
  CHECK_THAT(with([](auto& w) {
               w.push_back({"rope_freqs.weight", "", {4}, std::string(16, '\0')});
             }),
             Catch::Contains("rope_freqs.weight"));
  CHECK_THAT(with([](auto& w) {
               w.push_back({"blk.0.attn_q.bias", "", {32}, std::string(128, '\0')});
             }),
             Catch::Contains("attn_q.bias"));
  CHECK_THAT(with([](auto& w) {
               w.push_back({"blk.2.attn_norm.weight", "", {32}, std::string(128, '\0')});
             }),
             Catch::Contains("blk.2"));
  CHECK_THAT(with([](auto& w) {
               w[7].shape = {32, 64};
             }),
             Catch::Contains("has shape [32,64], the configuration needs [64,32]"));
}

TEST_CASE("numbers that cannot be a model's are refused before they are used") {
  const auto with = [](const char* key, std::uint32_t number) {
    GgufBytes file;
    file.string("general.architecture", "llama");
    const std::pair<const char*, std::uint32_t> all[] = {
        {"llama.block_count", 2},          {"llama.context_length", 128},     {"llama.embedding_length", 32},
        {"llama.feed_forward_length", 64}, {"llama.attention.head_count", 4}, {"llama.attention.head_count_kv", 2}};
    for (const auto& [name, value] : all) file.u32(name, std::string_view(name) == key ? number : value);
    file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    return refusal(file);
  };
  CHECK(with("", 0) == "accepted");
  CHECK_THAT(with("llama.block_count", 0), Catch::Contains("layers: found 0"));
  CHECK_THAT(with("llama.block_count", 4000000000u), Catch::Contains("layers: found 4000000000"));
  CHECK_THAT(with("llama.attention.head_count", 0), Catch::Contains("attention heads: found 0"));
  CHECK_THAT(with("llama.attention.head_count_kv", 3), Catch::Contains("multiple of the 3"));
  CHECK_THAT(with("llama.embedding_length", 36), Catch::Contains("head dimension: found 9"));
  CHECK_THAT(with("llama.embedding_length", 64), Catch::Contains("token_embd.weight has shape"));
}

} // namespace tenon

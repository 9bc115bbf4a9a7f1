#include "host/formats/gguf.hpp"
#include "host/formats/source_model.hpp"
#include "registry/base/sha256.hpp"
#include "tests/support/smollm2.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

namespace tenon {

// The digest was taken from gguf-py 0.19: every tensor dequantised, rows of q and k reordered as transformers does.
TEST_CASE("all 272 tensors of SmolLM2 have exactly the values gguf-py and transformers give them") {
  const SourceModel model = SourceModel::open(smollm2_gguf());
  std::vector<std::string> names;
  for (const StoredTensor& tensor : model.tensors()) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  CHECK(names.size() == 272);
  Sha256 all;
  for (const std::string& name : names) {
    const StoredTensor& tensor = model.at(name);
    std::vector<float> numbers(tensor.elements());
    dequantise(tensor, numbers);
    all.field(name).update(std::as_bytes(std::span(numbers)));
  }
  CHECK(all.hex() == "e3ddf102e180d30a804549de3334beb089de3d060572d95f993ccb8ff2a6246d");
}

TEST_CASE("SmolLM2's configuration and tokenizer metadata are read") {
  const SourceModel model = SourceModel::open(smollm2_gguf());
  const ModelConfig& c = model.config();
  CHECK(c.hidden_size == 576);
  CHECK(c.layers == 30);
  CHECK(c.heads == 9);
  CHECK(c.kv_heads == 3);
  CHECK(c.head_dim == 64);
  CHECK(c.ffn_size == 1536);
  CHECK(c.vocab_size == 49152);
  CHECK(c.context_length == 8192);
  CHECK(static_cast<float>(c.norm_eps) == 1e-5f);
  CHECK(c.rope_theta == 100000);
  CHECK(c.tie_embeddings);
  REQUIRE(model.gguf() != nullptr);
  CHECK(model.gguf()->string("tokenizer.ggml.pre") == "smollm");
  CHECK(model.gguf()->strings("tokenizer.ggml.tokens").size() == 49152);
  CHECK(model.gguf()->strings("tokenizer.ggml.merges").size() == 48900);
  CHECK(model.gguf()->integers("tokenizer.ggml.token_type").size() == 49152);
}

} // namespace tenon

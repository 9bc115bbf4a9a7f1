#include "host/formats/hf_config.hpp"
#include "host/formats/source_model.hpp"
#include "registry/base/error.hpp"
#include "tests/support/mutate_json.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/tiny_llama.hpp"

#include <catch2/catch.hpp>
#include <fstream>

namespace tenon {

TEST_CASE("a damaged config.json is read or refused") {
  Mutator mutator(6);
  int read = 0, refused = 0;
  for (int i = 0; i < 6000; ++i) {
    try {
      const std::string valid = TinyLlama::config();
      read_hf_config(parse_json(i % 2 ? mutator.mutate(valid) : mutate_json(mutator, valid), "fuzz"), "fuzz");
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(read > 200);
  CHECK(refused > 1000);
}

TEST_CASE("a directory with a damaged file is opened or refused, every byte of its tensors readable") {
  const Scratch scratch;
  const TinyLlama tiny;
  const auto views = tiny.views();
  json::object map;
  for (const TensorView& view : views) map[view.name] = "model-00001-of-00001.safetensors";
  const std::string index = pretty_json(json::object{{"weight_map", map}});
  write_safetensors(scratch.path() / "model-00001-of-00001.safetensors", views);
  const std::string shard = read_file(scratch.path() / "model-00001-of-00001.safetensors");
  const std::pair<const char*, std::string> files[] = {{"config.json", TinyLlama::config()},
                                                       {"model.safetensors.index.json", index},
                                                       {"model-00001-of-00001.safetensors", shard}};
  // Not atomic: a rename and two fsyncs a round would take longer than all the rest.
  const auto put = [&](const char* name, const std::string& text) {
    std::ofstream(scratch.path() / name, std::ios::binary) << text;
  };
  for (const auto& [name, text] : files) put(name, text);
  REQUIRE_NOTHROW(SourceModel::open(scratch.path()));

  Mutator mutator(7);
  int opened = 0, refused = 0;
  for (int i = 0; i < 1500; ++i) {
    const auto& [name, text] = files[i % 3];
    if (i % 3 == 2) {
      put(name, mutator.mutate(text.substr(0, 4000)) + text.substr(4000));
    } else {
      put(name, i % 2 ? mutator.mutate(text) : mutate_json(mutator, text));
    }
    try {
      const SourceModel model = SourceModel::open(scratch.path());
      for (const StoredTensor& tensor : model.tensors()) touch(tensor.bytes);
      ++opened;
    } catch (const Error&) {
      ++refused;
    }
    put(name, text);
  }
  CHECK(opened > 10);
  CHECK(refused > 300);
}

} // namespace tenon

// A registry with a random model of 4 layers, width 32, cut 1:3, byte tokenizer, its base, and the plugins of the build
// tree; with calibration text, and texts of another kind to train on. Everything is the same from run to run.
#pragma once

#include "host/composition/loader.hpp"
#include "host/loading/draft.hpp"
#include "host/model/import.hpp"
#include "host/model/random.hpp"
#include "registry/base/files.hpp"
#include "registry/registry.hpp"
#include "tests/support/scratch.hpp"

#include <string>
#include <vector>

namespace tenon::test {

// Sentences of made-up words; `name` chooses words and order.
inline std::string made_up_text(const std::string& name, std::size_t bytes) {
  const RandomStream letters(1, "words of " + name), order(2, "order of " + name);
  std::vector<std::string> words(40);
  std::uint64_t drawn = 0;
  for (std::string& word : words)
    for (std::uint64_t size = 2 + letters.below(drawn++, 7); size > 0; --size)
      word += static_cast<char>('a' + letters.below(drawn++, 26));
  std::string text;
  for (std::uint64_t i = 0; text.size() < bytes; ++i) {
    text += words[order.below(2 * i, words.size())];
    text += order.below(2 * i + 1, 9) == 0 ? ".\n" : " ";
  }
  return text;
}

// Lines of digits and signs: unlike any sentence.
inline std::string sums_text(std::size_t bytes, std::uint64_t seed = 0) {
  const RandomStream random(seed, "sums");
  std::string text;
  for (std::uint64_t i = 0; text.size() < bytes; ++i) {
    const std::uint64_t a = random.below(2 * i, 90) + 10, b = random.below(2 * i + 1, 90) + 10;
    text += std::to_string(a) + "+" + std::to_string(b) + "=" + std::to_string(a + b) + ";\n";
  }
  return text;
}

class TinyRegistry {
 public:
  TinyRegistry() : registry(Registry::create(path() / "registry", "tests")) {
    for (const char* kind : {"prose", "manual"})
      write_file(path() / "calibration" / kind / "text.txt", made_up_text(kind, 20000));
    for (const char* plugin : {"tenon_transformer.so", "tenon_low_rank.so", "tenon_memory.so"})
      registry.publish(plugin_draft(std::filesystem::path(TENON_PLUGINS) / plugin));
    add_model("tiny", random_model(shape(), 7), {1, 3});
    write_file(path() / "sums" / "sums.txt", sums_text(40000));
  }

  static ModelShape shape() {
    ModelShape shape;
    shape.width = 32, shape.layers = 4, shape.heads = 4, shape.kv_heads = 2, shape.head_dim = 8, shape.ffn_width = 48;
    shape.vocab = Tokenizer(byte_tokenizer()).vocab_size();
    shape.tied = true;
    return shape;
  }

  // Cuts the model and publishes it and its base.
  void add_model(const std::string& name, const WholeModel& whole, const Cut& cut) const {
    ImportOptions options;
    options.name = name;
    options.cut = cut;
    options.calibration = {path() / "calibration"};
    options.staging = path() / "staging" / name;
    options.cache = cache();
    const ImportedModel imported = import_model(whole, options);
    registry.publish(imported.base);
    registry.publish(imported.model);
  }

  std::filesystem::path path() const { return scratch_.path(); }
  std::filesystem::path cache() const { return path() / "cache"; }
  Loader loader(std::vector<std::filesystem::path> dev = {}) const {
    return Loader(registry, {path() / "store", cache(), std::move(dev)});
  }

 private:
  Scratch scratch_;

 public:
  Registry registry;
};

} // namespace tenon::test

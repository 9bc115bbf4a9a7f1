// Experts of the plugins in the build tree, over a model that is no more than a width and statistics. Everything is the
// same from run to run.
#pragma once

#include "host/composition/loader.hpp"
#include "host/loading/library.hpp"
#include "tests/support/tiny_model.hpp"

namespace tenon::test {

inline constexpr std::int64_t kPluginWidth = 12;

// A plugin's library, by name: "tenon_mlp". Loaded once.
inline const Plugin& built_plugin(const std::string& library) {
  static const Scratch scratch;
  static const PluginLoader loader(host_side(host_operators()), scratch.path() / "store", host_table());
  return loader.load({std::filesystem::path(TENON_PLUGINS) / (library + ".so"), nullptr});
}

struct PluginKind {
  std::string library, architecture;
  json::object config;
  json::object base = {}; // as its expert.json says: for those that share the base's weights

  const ArchitectureFacts& facts() const { return *built_plugin(library).facts.architecture(architecture); }

  // At birth.
  std::unique_ptr<LoadedExpert> born(std::int64_t width = kPluginWidth) const {
    const json::object values = {{"config", facts().complete(config)},
                                 {"model", {{"width", width}, {"first", 1}, {"last", 3}, {"dtype", "float32"}}},
                                 {"base", base}};
    auto expert = std::make_unique<LoadedExpert>(
        built_plugin(library).table,
        ExpertSpec{architecture, architecture, values, normal("mean", {width}, 0.3),
                   normal("deviation", {width}, 0.2).add(1.5), facts().context, facts().uses_base_output()});
    expert->initialize(1);
    return expert;
  }

  // With every parameter away from where it was born.
  std::unique_ptr<LoadedExpert> grown(std::int64_t width = kPluginWidth) const {
    auto expert = born(width);
    at::NoGradGuard no_grad;
    for (const ExpertParameter& parameter : expert->parameters())
      at::Tensor(parameter.tensor).add_(normal(parameter.name, parameter.tensor.sizes(), 0.2));
    return expert;
  }
};

} // namespace tenon::test

// A small world for registry tests: a model, its base, an expert and two plugins, as drafts over scratch files.
#pragma once

#include "registry/lock.hpp"
#include "registry/manifest.hpp"
#include "registry/registry.hpp"
#include "tests/support/scratch.hpp"

#include <filesystem>
#include <fstream>
#include <string>

namespace tenon::fixtures {

inline const std::string kPlatform = "x86_64-linux gcc-12 libtorch-2.11.0";

inline std::string digest(const std::string& of) { return digest_of_text(of); }

inline void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline ModelContract contract() {
  return {.model_digest = digest("trunk and head"),
          .base_digest = digest("base"),
          .cut = {1, 3},
          .width = 8,
          .tokenizer_digest = digest("bytes"),
          .dtype = "float32",
          .positions = "rope-absolute"};
}

inline ModelManifest model_manifest(const std::string& version = "1.0.0") {
  ModelManifest m;
  m.name = "tiny";
  m.version = Version::parse(version);
  m.summary = "A tiny model";
  m.license = "Apache-2.0";
  m.family = "llama";
  m.layers = 4;
  m.vocab = 256;
  m.contract = contract();
  m.base_name = "tiny-base";
  m.calibration = Calibration{1000, {"prose", "code"}, digest("d0")};
  m.config = {{"hidden_size", 8}};
  return m;
}

inline ExpertManifest expert_manifest(const std::string& name, const std::string& version = "1.0.0") {
  ExpertManifest m;
  m.name = name;
  m.version = Version::parse(version);
  m.summary = "Knows " + name;
  m.plugin = PackageRequest::parse("acme.mlp@^1");
  m.architecture = "acme.mlp";
  m.config = {{"inner", 16}};
  m.contract = contract();
  m.context = "token";
  m.uses = {"base.output"};
  m.weights = {{"up", {16, 8}, "float32", "file:up"}};
  m.row = digest("row of " + name);
  m.provenance = {{"seed", 7}};
  return m;
}

// Lays a package's files under `folder` and makes the draft from them, as a user would.
inline Draft draft(const std::filesystem::path& folder, const ExpertManifest& manifest) {
  write(folder / "expert.json", pretty_json(manifest.to_json()));
  write(folder / "weights.safetensors", "weights of " + manifest.name + " " + manifest.version.text());
  if (manifest.row) write(folder / "row.safetensors", "row of " + manifest.name);
  return draft_from_folder(folder);
}

inline Draft draft(const std::filesystem::path& folder, const ModelManifest& manifest) {
  write(folder / "model.json", pretty_json(manifest.to_json()));
  write(folder / "weights.safetensors", "weights of " + manifest.name);
  write(folder / "calibration/d0.bin", "tokens");
  return draft_from_folder(folder);
}

inline Draft plugin_draft(const std::filesystem::path& folder, const std::string& name = "acme.mlp",
                          const std::string& version = "1.0.0", const std::string& platform = kPlatform,
                          const std::string& source = "source 1") {
  write(folder / "library.so",
        "\x7f"
        "ELF of " +
            name + version + platform);
  Draft d;
  d.kind = Kind::plugin;
  d.name = name;
  d.version = Version::parse(version);
  d.summary = "A plugin";
  d.manifest = {{"name", name}, {"version", version}};
  d.files = {{name + ".so", folder / "library.so", "library"}};
  d.platform = platform;
  d.source = digest(source);
  return d;
}

inline ExpertManifest base_manifest(const std::string& version = "1.0.0") {
  ExpertManifest m = expert_manifest("tiny-base", version);
  m.row.reset();
  return m;
}

// A registry with tiny 1.0.0, tiny-base 1.0.0, legal 1.0.0 and 1.1.0, hr 1.0.0, acme.mlp 1.0.0 and 1.2.0. Published
// once, then copied for each test: publishing waits for the disk many times.
struct World {
  Scratch scratch;
  Registry registry = copied();

  std::filesystem::path folder() { return scratch.path() / ("package" + std::to_string(next_++)); }

  Request request() const {
    Request r;
    r.model = PackageRequest::parse("tiny@^1");
    r.experts = {PackageRequest::parse("legal@^1"), PackageRequest::parse("hr")};
    return r;
  }

 private:
  static const std::filesystem::path& original() {
    static const Scratch home;
    static const std::filesystem::path path = [] {
      const Registry registry = Registry::create(home.path() / "registry", "test");
      int next = 0;
      const auto folder = [&] { return home.path() / ("package" + std::to_string(next++)); };
      registry.publish(plugin_draft(folder(), "acme.mlp", "1.0.0"));
      registry.publish(plugin_draft(folder(), "acme.mlp", "1.2.0"));
      registry.publish(draft(folder(), base_manifest()));
      registry.publish(draft(folder(), model_manifest()));
      for (const char* version : {"1.0.0", "1.1.0"})
        registry.publish(draft(folder(), expert_manifest("legal", version)));
      registry.publish(draft(folder(), expert_manifest("hr")));
      return registry.path();
    }();
    return path;
  }

  Registry copied() const {
    std::filesystem::copy(original(), scratch.path() / "registry", std::filesystem::copy_options::recursive);
    return Registry(scratch.path() / "registry");
  }

  int next_ = 0;
};

// The Error a call throws; fails the comparison with code bug where it throws none.
template <typename Call>
Error error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return Error(Code::bug, "test", "nothing was thrown");
}

} // namespace tenon::fixtures

// What a plugin says about itself, as data: the author's plugin.json plus what tenon_add_plugin() knows of the build.
// The same bytes stand in the library as an ELF note and in the package; no plugin code runs to read them.
//
// Thread: values; any thread.
#pragma once

#include "registry/base/json.hpp"
#include "registry/version.hpp"

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

// Must match exactly in the native tier.
struct Platform {
  std::string compiler; // "gnu-12"
  std::string stdlib;   // "libstdc++-cxx11"
  std::string libtorch; // "2.11.0"
  std::string cuda;     // "13.0", or "none"
  std::string cpu;      // "x86_64"

  bool operator==(const Platform&) const = default;
  std::string text() const; // "gnu-12 libstdc++-cxx11 libtorch-2.11.0 cuda-none x86_64": what a registry entry says
};

struct AbiVersion {
  std::int64_t major = 0, minor = 0;
  auto operator<=>(const AbiVersion&) const = default;
  std::string text() const;
};

// What an expert's output at position t depends on.
struct ExpertContext {
  enum class Kind { token, window, causal, recurrent };
  Kind kind = Kind::causal;
  std::int64_t window = 0; // of kind window: h of t-window+1 .. t

  // "token", "window(4)", "causal", "recurrent". Errors: integrity.
  static ExpertContext parse(std::string_view text);
  std::string text() const;
  bool operator==(const ExpertContext&) const = default;
};

// The model widths C an architecture can be built for. Default: any.
struct Widths {
  std::vector<std::int64_t> only; // empty: no such limit
  std::int64_t multiple_of = 1;

  bool allow(std::int64_t width) const;
  std::string text() const; // "any", "576 or 768", "multiples of 8"
};

struct ArchitectureFacts {
  std::string name, summary;
  json::object config; // JSON Schema with defaults
  ExpertContext context;
  std::vector<std::string> uses; // "base.output"
  bool imports_layers = false;   // its blocks.<i> are cut from a model's layers when it is trained
  bool learns_in_a_pass = false; // "learns": "pass" instead of "gradient"; then it uses base.output
  Widths widths;
  std::vector<std::string> devices;       // "cpu"
  std::vector<std::string> precisions;    // "float32", "bfloat16"
  std::vector<std::string> operators;     // "tenon::linear_v1"
  std::vector<std::string> cpu_features;  // "avx2"
  std::int64_t working_bytes_per_row = 0; // scratch memory forward needs, as far as the author knows

  bool uses_base_output() const;
  // The expert's configuration checked against the schema, defaults filled in. Errors: integrity, each problem named.
  json::object complete(const json::object& config) const;
};

struct Facts {
  std::string name, vendor, license, summary;
  Version version;
  std::vector<ArchitectureFacts> architectures;
  Platform platform;
  std::string tier; // "tenon.native/1"
  AbiVersion abi_built, abi_needs;
  std::string source; // digest of the source it was built from
  json::object json;  // all of it, as embedded

  // Untrusted text. Errors: integrity, each problem with its path.
  static Facts parse(std::string_view text, const std::string& where);

  // nullptr where this plugin has no such architecture.
  const ArchitectureFacts* architecture(std::string_view name) const;
  std::string title() const { return name + " " + version.text(); } // "acme.conv 1.2.0"
};

// The ELF note: name "Tenon", type 1. Errors: integrity (no ELF file, no note, facts that break their schema).
std::string facts_text(std::span<const std::byte> library, const std::string& where);
Facts read_facts(std::span<const std::byte> library, const std::string& where);

} // namespace tenon

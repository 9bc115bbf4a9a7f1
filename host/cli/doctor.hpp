// What the machine is like: the rules `tenon doctor` runs, each with a stable id.
#pragma once

#include "registry/base/json.hpp"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace tenon {

enum class Health { ok, note, bad };

struct Finding {
  Health health = Health::ok;
  std::string found;       // what is there
  std::string remedy = {}; // what to do, if something is to be done
};

struct InstalledPlugin {
  std::string file;
  std::vector<std::string> refusals; // of the loading rules; empty where it would load
};

// Of packed products.
struct KernelChoice {
  std::string tier;               // in use
  std::vector<std::string> tiers; // that this processor has, ascending
  int threads = 0;
  std::string pages, keys;  // where weights lie, and what keys and values are kept as
  std::string refusal = {}; // what one of the variables that choose them asks for and cannot have; empty: nothing
};

// What the rules look at; a test gives its own.
struct Surroundings {
  std::filesystem::path home, registry;
  std::string torch_compiled;                // "2.11.0"
  std::string torch_loaded;                  // likewise
  std::string torch_path;                    // the library that is loaded
  std::vector<std::string> mapped_libraries; // paths, each once
  std::vector<std::string> cpu_features;     // "avx2", ...
  std::filesystem::path plugin_folder;       // of the plugins that come with Tenon
  std::vector<InstalledPlugin> plugins = {}; // those in it
  KernelChoice kernels = {};
};

struct DoctorRule {
  const char* id;   // "TN-D1"
  const char* what; // "LibTorch"
  std::function<Finding(const Surroundings&)> check;
};

const std::vector<DoctorRule>& doctor_rules();
// Of this process, home and registry as given.
Surroundings look_around(const std::filesystem::path& home, const std::filesystem::path& registry);

} // namespace tenon

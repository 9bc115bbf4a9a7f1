#include "host/cli/doctor.hpp"
#include "host/cli/output.hpp"
#include "registry/base/error.hpp"
#include "registry/registry.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <set>

namespace tenon {
namespace {

namespace fs = std::filesystem;

Finding libtorch(const Surroundings& here) {
  const std::string found = fmt::format("{} loaded from {}", here.torch_loaded, here.torch_path);
  if (here.torch_loaded == here.torch_compiled) return {Health::ok, found};
  return {Health::bad, fmt::format("{}; this program was built for {}", found, here.torch_compiled),
          "put the folder of LibTorch " + here.torch_compiled + " first in LD_LIBRARY_PATH, or rebuild"};
}

Finding cpu(const Surroundings& here) {
  const bool avx2 = std::find(here.cpu_features.begin(), here.cpu_features.end(), "avx2") != here.cpu_features.end();
  const std::string found = joined(here.cpu_features, " ");
  if (avx2) return {Health::ok, found};
  return {Health::note, found.empty() ? "no vector features known here" : found,
          "everything works, slowly: a CPU with AVX2 is much faster"};
}

// The nearest folder that exists, since home is made at the first write.
fs::path nearest_existing(fs::path path) {
  while (!path.empty() && !fs::exists(path) && path != path.parent_path()) path = path.parent_path();
  return path;
}

Finding home(const Surroundings& here) {
  const fs::path existing = nearest_existing(here.home);
  if (!fs::is_directory(existing)) {
    return {Health::bad, existing.string() + " is no folder", "give another --home or TENON_HOME"};
  }
  if (access(existing.c_str(), W_OK) != 0) {
    return {Health::bad, existing.string() + " may not be written by this user",
            "change its permissions, or give another --home or TENON_HOME"};
  }
  const double free_gib = static_cast<double>(fs::space(existing).available) / (1 << 30);
  const std::string found = fmt::format("{}, {:.1f} GiB free", here.home.string(), free_gib);
  if (free_gib < 2) return {Health::note, found, "a model and its caches want about 2 GiB"};
  return {Health::ok, found + (existing == here.home ? "" : " (made at the first write)")};
}

Finding registry(const Surroundings& here) {
  if (!fs::exists(here.registry))
    return {Health::note, "none at " + here.registry.string(), "the first publish makes it"};
  try {
    const Listing listing = Registry(here.registry).list();
    if (listing.damaged.empty()) {
      return {Health::ok, fmt::format("{}, {} packages", here.registry.string(), listing.packages.size())};
    }
    return {Health::bad, fmt::format("{} damaged, first: {}", listing.damaged.size(), listing.damaged.front().message),
            listing.damaged.front().remedy};
  } catch (const Error& error) {
    return {Health::bad, error.message, error.remedy.empty() ? "give another --registry" : error.remedy};
  }
}

Finding plugins(const Surroundings& here) {
  std::vector<std::string> refused;
  for (const InstalledPlugin& plugin : here.plugins) {
    if (!plugin.refusals.empty()) refused.push_back(plugin.file + ": " + plugin.refusals.front());
  }
  if (!refused.empty()) {
    return {Health::bad, joined(refused, "; "),
            fmt::format("look closer with: tenon plugin check {}/FILE", here.plugin_folder.string())};
  }
  const std::string found = fmt::format("{} in {}", here.plugins.size(), here.plugin_folder.string());
  if (here.plugins.empty()) return {Health::note, found, "install Tenon whole: its own plugins lie beside the program"};
  return {Health::ok, found};
}

// Two OpenMP runtimes in one process fight over the cores, or hang.
Finding openmp(const Surroundings& here) {
  std::set<std::string> runtimes;
  for (const std::string& library : here.mapped_libraries) {
    const std::string name = fs::path(library).filename();
    if (name.starts_with("libgomp") || name.starts_with("libiomp") || name.starts_with("libomp"))
      runtimes.insert(library);
  }
  const std::string found = runtimes.empty() ? "none loaded" : joined({runtimes.begin(), runtimes.end()}, " and ");
  if (runtimes.size() < 2) return {Health::ok, found};
  return {Health::bad, found, "only LibTorch's own may be loaded: unset LD_PRELOAD, look at LD_LIBRARY_PATH"};
}

// Which kernels packed products run on, and how many threads.
Finding kernels(const Surroundings& here) {
  const KernelChoice& choice = here.kernels;
  const std::string has = joined(choice.tiers, ", ");
  if (!choice.refusal.empty())
    return {Health::bad, choice.refusal, "give such a value, or unset the variable; tiers of this processor: " + has};
  const std::string found =
      fmt::format("{} on {} thread{}; this processor has {}; packed weights {}, keys and values in {}", choice.tier,
                  choice.threads, choice.threads == 1 ? "" : "s", has, choice.pages, choice.keys);
  if (choice.tier == choice.tiers.back()) return {Health::ok, found};
  return {Health::note, found, "unset TENON_TIER: " + choice.tiers.back() + " is faster"};
}

} // namespace

const std::vector<DoctorRule>& doctor_rules() {
  static const std::vector<DoctorRule> rules = {
      {"TN-D1", "LibTorch", libtorch}, {"TN-D2", "CPU", cpu},       {"TN-D3", "home", home},
      {"TN-D4", "registry", registry}, {"TN-D5", "OpenMP", openmp}, {"TN-D6", "plugins", plugins},
      {"TN-D7", "kernels", kernels},
  };
  return rules;
}

} // namespace tenon

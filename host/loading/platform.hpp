// What this host is, as data for the rules: platform, ABI, CPU features. The operators it has and the host table are
// given by whoever links them.
// Thread: any.
#pragma once

#include "host/loading/facts.hpp"

#include <filesystem>
#include <string>
#include <vector>

namespace tenon {

struct HostSide {
  Platform platform;
  AbiVersion abi;
  std::vector<std::string> operators; // "tenon::linear_v1", ... those in LibTorch's dispatcher
  std::vector<std::string> cpu_features;
  std::vector<std::string> devices;
};

const Platform& host_platform();
std::vector<std::string> host_cpu_features(); // "avx2", "fma", "avx512f", ...
std::vector<std::string> host_operators();    // "tenon::linear_v1", ... in LibTorch's dispatcher
HostSide host_side(std::vector<std::string> operators);

// Where the plugins that come with Tenon lie: lib/tenon/plugins beside the program's bin/. May not exist.
std::filesystem::path shipped_plugins();
std::filesystem::path shipped_sources(); // and their sources, a folder each: share/tenon/plugins

} // namespace tenon

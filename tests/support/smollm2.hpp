// Where set-up put SmolLM2. A test that needs it fails, and does not skip, where it is missing.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>

namespace tenon {

inline std::filesystem::path smollm2_gguf() {
  const char* given = std::getenv("TENON_SMOLLM2_GGUF");
  const std::filesystem::path path =
      given ? given : std::filesystem::path(TENON_TEST_DATA) / "../.deps/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) {
    throw std::runtime_error("SmolLM2 is not at " + path.string() + "; run host/setup.sh");
  }
  return path;
}

} // namespace tenon

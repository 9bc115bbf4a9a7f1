#include "host/loading/platform.hpp"

#include <fmt/format.h>
#include <tenon/plugin.h>
#include <torch/headeronly/version.h>

#include <unistd.h>

#include <system_error>

namespace tenon {
namespace {

#if defined(__x86_64__)
constexpr const char* kCpu = "x86_64";
#elif defined(__aarch64__)
constexpr const char* kCpu = "aarch64";
#else
constexpr const char* kCpu = "other";
#endif

std::string compiler() {
#if defined(__clang__)
  return fmt::format("clang-{}", __clang_major__);
#elif defined(__GNUC__)
  return fmt::format("gnu-{}", __GNUC__);
#else
  return "other";
#endif
}

std::string stdlib() {
#if defined(_LIBCPP_VERSION)
  return "libc++";
#elif _GLIBCXX_USE_CXX11_ABI
  return "libstdc++-cxx11";
#else
  return "libstdc++-old";
#endif
}

} // namespace

const Platform& host_platform() {
  static const Platform platform{compiler(), stdlib(),
                                 fmt::format("{}.{}.{}", TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR, TORCH_VERSION_PATCH),
                                 "none", kCpu};
  return platform;
}

std::vector<std::string> host_cpu_features() {
  std::vector<std::string> out;
#if defined(__x86_64__)
  __builtin_cpu_init();
#define TENON_FEATURE(name) \
  if (__builtin_cpu_supports(name)) out.emplace_back(name)
  TENON_FEATURE("sse4.2");
  TENON_FEATURE("popcnt");
  TENON_FEATURE("avx");
  TENON_FEATURE("avx2");
  TENON_FEATURE("bmi2");
  TENON_FEATURE("fma");
  TENON_FEATURE("f16c");
  TENON_FEATURE("avx512f");
  TENON_FEATURE("avx512bw");
  TENON_FEATURE("avx512dq");
  TENON_FEATURE("avx512vl");
  TENON_FEATURE("avx512vnni");
  TENON_FEATURE("avx512bf16");
  TENON_FEATURE("avxvnni");
#undef TENON_FEATURE
#elif defined(__aarch64__)
  out.emplace_back("neon");
#endif
  return out;
}

HostSide host_side(std::vector<std::string> operators) {
  return {host_platform(), {TENON_ABI_MAJOR, TENON_ABI_MINOR}, std::move(operators), host_cpu_features(), {"cpu"}};
}

namespace {

// The folder that bin/, lib/ and share/ lie in.
std::filesystem::path prefix() {
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path().parent_path();
}

} // namespace

std::filesystem::path shipped_plugins() { return prefix() / "lib" / "tenon" / "plugins"; }

std::filesystem::path shipped_sources() { return prefix() / "share" / "tenon" / "plugins"; }

} // namespace tenon

#include "kernels/cpu/pages.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <new>
#include <stdexcept>
#include <string>

namespace tenon::cpu {
namespace {

constexpr std::size_t kHuge = std::size_t{2} << 20;
constexpr const char* kSetting = "/sys/kernel/mm/transparent_hugepage/enabled";

void require_huge() {
  std::string setting;
  std::getline(std::ifstream(kSetting), setting);
  if (setting.find("[madvise]") != std::string::npos || setting.find("[always]") != std::string::npos) return;
  throw std::runtime_error("TENON_PAGES: found huge, but this system gives no 2 MiB pages (" + std::string(kSetting) +
                           (setting.empty() ? " is missing" : " is \"" + setting + "\", need madvise or always") +
                           "); unset TENON_PAGES");
}

} // namespace

const char* pages_name(Pages pages) { return pages == Pages::huge ? "huge" : "mapped"; }

Pages choose_pages(std::string_view asked) {
  if (asked.empty() || asked == "mapped") return Pages::mapped;
  if (asked != "huge")
    throw std::runtime_error("TENON_PAGES: found \"" + std::string(asked) + "\", need mapped or huge");
  require_huge();
  return Pages::huge;
}

Pages pages() {
  const char* asked = std::getenv("TENON_PAGES");
  return choose_pages(asked ? asked : "");
}

HugeMemory::HugeMemory(std::size_t bytes) {
  const std::size_t size = bytes + kHuge;
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  mapping_ = {static_cast<std::byte*>(at), size};
  const std::size_t skipped = (kHuge - reinterpret_cast<std::uintptr_t>(at) % kHuge) % kHuge;
  bytes_ = mapping_.subspan(skipped, bytes);
  madvise(bytes_.data(), size - skipped, MADV_HUGEPAGE); // advice: without it the memory is slower, not wrong
}

HugeMemory::~HugeMemory() { munmap(mapping_.data(), mapping_.size()); }

} // namespace tenon::cpu

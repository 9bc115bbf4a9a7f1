#include "kernels/cpu/pages.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
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

// /proc/self/smaps: a line "begin-end ..." for a mapping, in hexadecimal, then its fields, of which one is in kB.
std::size_t HugeMemory::in_huge_pages() const {
  const auto first = reinterpret_cast<std::uintptr_t>(mapping_.data()), last = first + mapping_.size();
  std::size_t sum_kb = 0;
  bool ours = false;
  std::ifstream maps("/proc/self/smaps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long long begin = 0, end = 0, kb = 0;
    if (std::sscanf(line.c_str(), "%llx-%llx ", &begin, &end) == 2)
      ours = begin < last && end > first;
    else if (ours && std::sscanf(line.c_str(), "AnonHugePages: %llu kB", &kb) == 1)
      sum_kb += kb;
  }
  return std::min(sum_kb * 1024, bytes_.size());
}

HugeMemory::~HugeMemory() { munmap(mapping_.data(), mapping_.size()); }

} // namespace tenon::cpu

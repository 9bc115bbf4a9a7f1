// Where packed weights lie: in their mapped file, shared between processes, or copied once into 2 MiB pages of this
// process's own. Rows that stream 4 KiB pages wait for the processor to look up addresses; file mappings have no
// others. Thread: any; a HugeMemory as its owner says.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace tenon::cpu {

enum class Pages { mapped, huge };
const char* pages_name(Pages pages);

// asked: mapped or huge; empty for mapped. Throws std::runtime_error, saying what was found, what is needed and the
// remedy: for other words, and for huge where this system gives none.
Pages choose_pages(std::string_view asked);
// As TENON_PAGES says.
Pages pages();

// Memory in 2 MiB pages, as far as the system has such; zeros. Throws std::bad_alloc.
class HugeMemory {
 public:
  explicit HugeMemory(std::size_t bytes);
  HugeMemory(const HugeMemory&) = delete;
  HugeMemory& operator=(const HugeMemory&) = delete;
  ~HugeMemory();

  std::span<std::byte> bytes() const { return bytes_; } // begins at a multiple of 2 MiB
  // How many of its bytes that were written lie in 2 MiB pages by now, as the system says.
  std::size_t in_huge_pages() const;

 private:
  std::span<std::byte> mapping_, bytes_;
};

} // namespace tenon::cpu

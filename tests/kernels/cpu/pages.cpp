#include "kernels/cpu/pages.hpp"

#include <catch2/catch.hpp>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace tenon::cpu {

TEST_CASE("where weights lie is one of two words, and huge pages that a system does not give are refused") {
  CHECK(choose_pages("") == Pages::mapped);
  CHECK(choose_pages(pages_name(Pages::mapped)) == Pages::mapped);
  CHECK_THROWS_WITH(choose_pages("large"), Catch::Contains("need mapped or huge"));
  try {
    CHECK(choose_pages("huge") == Pages::huge);
  } catch (const std::runtime_error& error) {
    CHECK_THAT(error.what(), Catch::Contains("unset TENON_PAGES"));
  }
}

TEST_CASE("huge memory is zeros, aligned to 2 MiB and written to its end") {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{64}, (std::size_t{2} << 20) + 3}) {
    const HugeMemory memory(bytes);
    REQUIRE(memory.bytes().size() == bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(memory.bytes().data()) % (std::size_t{2} << 20) == 0);
    CHECK(memory.bytes().back() == std::byte{0});
    CHECK(memory.in_huge_pages() == 0); // nothing was written yet
    std::memset(memory.bytes().data(), 1, bytes);
    const std::size_t huge = memory.in_huge_pages(); // whole pages, as far as the system had such
    CHECK((huge == 0 || huge == bytes || huge == std::size_t{2} << 20));
    CHECK(memory.bytes().back() == std::byte{1});
  }
}

} // namespace tenon::cpu

// Damages bytes in the ways files get damaged and attackers try: seeded, so that a failure can be run again.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <atomic>
// Of the sanitizer's <allocator_interface.h>, which Debian's GCC does not carry.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, std::size_t),
                                                         void (*on_free)(const volatile void*));
#endif

namespace tenon {

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::uint64_t below(std::uint64_t limit) { return limit ? random_() % limit : 0; }

  // One to four damages of a copy of the bytes.
  std::vector<std::byte> mutate(std::span<const std::byte> valid) {
    std::vector<std::byte> bytes(valid.begin(), valid.end());
    for (std::uint64_t n = 1 + below(4); n > 0 && !bytes.empty(); --n) damage(bytes);
    return bytes;
  }
  std::string mutate(const std::string& text) {
    const auto bytes = mutate(std::as_bytes(std::span(text)));
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

 private:
  void damage(std::vector<std::byte>& bytes) {
    const std::size_t at = below(bytes.size());
    switch (below(7)) {
      case 0: bytes[at] ^= std::byte(1u << below(8)); break;
      case 1: bytes[at] = std::byte(below(256)); break;
      case 2: bytes.resize(at); break;
      case 3:
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), 1 + below(16), std::byte(below(256)));
        break;
      case 4: erase(bytes, at); break;
      case 5: splice(bytes, at); break;
      default: extreme(bytes, at); break;
    }
  }
  void erase(std::vector<std::byte>& bytes, std::size_t at) {
    const std::size_t size = std::min<std::size_t>(bytes.size() - at, 1 + below(16));
    bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                bytes.begin() + static_cast<std::ptrdiff_t>(at + size));
  }
  // A piece from somewhere, written elsewhere.
  void splice(std::vector<std::byte>& bytes, std::size_t at) {
    const std::size_t from = below(bytes.size());
    const std::size_t size = std::min(bytes.size() - std::max(at, from), std::size_t{1} + below(64));
    std::memmove(bytes.data() + at, bytes.data() + from, size);
  }
  // An integer field at its limits, or near the file's size.
  void extreme(std::vector<std::byte>& bytes, std::size_t at) {
    const std::array<std::uint64_t, 14> values{0,
                                               1,
                                               2,
                                               0x7f,
                                               0xff,
                                               0x7fff,
                                               0x7fffffff,
                                               0x80000000,
                                               0xffffffff,
                                               std::uint64_t{1} << 60,
                                               std::uint64_t{1} << 63,
                                               ~std::uint64_t{0},
                                               bytes.size(),
                                               bytes.size() - 1};
    const std::uint64_t value = values[below(values.size())];
    const std::size_t width = std::size_t{1} << below(4);
    if (below(2) == 0) at -= at % width;
    std::memcpy(bytes.data() + at, &value, std::min(width, bytes.size() - at));
  }

  std::mt19937_64 random_;
};

// Reads every byte, so that a span outside its buffer is found by the address sanitizer.
inline void touch(std::span<const std::byte> bytes) {
  unsigned sum = 0;
  for (const std::byte byte : bytes) sum += std::to_integer<unsigned>(byte);
  [[maybe_unused]] volatile unsigned sink = sum;
}

// The largest single allocation since construction; always 0 where there is no address sanitizer.
class AllocationWatch {
 public:
#if defined(__SANITIZE_ADDRESS__)
  AllocationWatch() {
    static const int installed = __sanitizer_install_malloc_and_free_hooks(
        [](const volatile void*, std::size_t size) {
          if (size > largest_seen) largest_seen = size;
        },
        [](const volatile void*) {});
    (void)installed;
    largest_seen = 0;
  }
  std::size_t largest() const { return largest_seen; }

 private:
  static inline std::atomic<std::size_t> largest_seen{0};
#else
  AllocationWatch() {}
  std::size_t largest() const { return 0; }
#endif
};

} // namespace tenon

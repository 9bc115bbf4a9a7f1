// Named, counter-based random streams: element i of stream (seed, name) is a pure function of the three, so that no
// order of calls and no added stream shifts another. Philox4x32-10 (Salmon et al. 2011), normals by Box and Muller.
// Thread: values; any.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace tenon {

class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view name);

  std::uint32_t bits(std::uint64_t index) const;
  double uniform(std::uint64_t index) const;                           // [0, 1)
  std::uint64_t below(std::uint64_t index, std::uint64_t bound) const; // [0, bound); bound > 0
  void normal(std::span<float> out) const;                             // elements 0, 1, ...

 private:
  std::array<std::uint32_t, 4> block(std::uint64_t counter) const;
  std::array<std::uint32_t, 2> key_;
  std::uint32_t stream_;
};

} // namespace tenon

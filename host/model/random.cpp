#include "host/model/random.hpp"

#include <cmath>
#include <numbers>

namespace tenon {
namespace {

std::uint64_t hash_name(std::string_view name) { // FNV-1a
  std::uint64_t hash = 14695981039346656037ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

} // namespace

RandomStream::RandomStream(std::uint64_t seed, std::string_view name) {
  const std::uint64_t hash = hash_name(name);
  const std::uint64_t mixed = seed ^ (hash * 0x9e3779b97f4a7c15ull);
  key_ = {static_cast<std::uint32_t>(mixed), static_cast<std::uint32_t>(mixed >> 32)};
  stream_ = static_cast<std::uint32_t>(hash >> 32) ^ static_cast<std::uint32_t>(hash);
}

std::array<std::uint32_t, 4> RandomStream::block(std::uint64_t counter) const {
  std::array<std::uint32_t, 4> x = {static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
                                    stream_, 0};
  std::array<std::uint32_t, 2> key = key_;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * x[0], b = 0xCD9E8D57ull * x[2];
    x = {static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ key[0], static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return x;
}

std::uint32_t RandomStream::bits(std::uint64_t index) const { return block(index / 4)[index % 4]; }

double RandomStream::uniform(std::uint64_t index) const { return bits(index) * 0x1p-32; }

std::uint64_t RandomStream::below(std::uint64_t index, std::uint64_t bound) const {
  const std::uint64_t wide = (static_cast<std::uint64_t>(bits(2 * index)) << 32) | bits(2 * index + 1);
  return wide % bound; // bound is far below 2^64, so the bias is far below anything seen
}

void RandomStream::normal(std::span<float> out) const {
  for (std::size_t i = 0; i < out.size(); i += 4) {
    const auto x = block(i / 4);
    float four[4];
    for (int pair = 0; pair < 2; ++pair) {
      const double radius = std::sqrt(-2.0 * std::log((x[2 * pair] + 0.5) * 0x1p-32));
      const double angle = 2.0 * std::numbers::pi * x[2 * pair + 1] * 0x1p-32;
      four[2 * pair] = static_cast<float>(radius * std::cos(angle));
      four[2 * pair + 1] = static_cast<float>(radius * std::sin(angle));
    }
    for (std::size_t j = 0; j < 4 && i + j < out.size(); ++j) out[i + j] = four[j];
  }
}

} // namespace tenon

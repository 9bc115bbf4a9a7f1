// Numbers and weights for tests of kernels. Thread: values; any.
#pragma once

#include "kernels/cpu/product.hpp"
#include "tests/kernels/tolerance.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace tenon::cpu::test {

// Uniform in [-1, 1), the same for the same seed.
inline std::vector<float> noise(std::int64_t count, std::uint64_t seed, float scale = 1.0f) {
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& one : out) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    one = scale * (static_cast<float>(seed >> 40) / 8388608.0f - 1.0f);
  }
  return out;
}

constexpr PackedFormat kFormats[] = {PackedFormat::bf16, PackedFormat::int8g32, PackedFormat::int4g32,
                                     PackedFormat::int4g32m, PackedFormat::bf16e4};

// Packed bytes with their matrix; misaligned by nothing: what kernels require.
struct Weights {
  std::unique_ptr<Arena> arena = std::make_unique<Arena>();
  PackedMatrix matrix;

  Weights(PackedFormat format, std::int64_t outputs, std::int64_t inputs, const std::vector<float>& values) {
    const std::size_t bytes = packed_bytes(format, outputs, inputs).value();
    auto* memory = arena->take<std::byte>(static_cast<std::int64_t>(bytes));
    pack(format, outputs, inputs, values, {memory, bytes});
    matrix = {format, outputs, inputs, memory};
  }
  std::vector<float> row(std::int64_t index) const {
    std::vector<float> out(static_cast<std::size_t>(matrix.inputs));
    unpack_row(matrix, index, out);
    return out;
  }
};

using tenon::test::kTolerance;

// Row r as kernels see it in that format, exactly.
inline std::vector<double> seen(const Activations& x, std::int64_t r, PackedFormat format) {
  std::vector<double> out(static_cast<std::size_t>(x.width));
  for (std::int64_t c = 0; c < x.width; ++c)
    out[c] = reads_bf16(format) ? nn::bf16_to_f32(x.bf16[r * x.bf16_stride() + c])
                                : static_cast<double>(x.q[r * x.width + c]) * x.scale[r * x.groups() + c / kGroup];
  return out;
}

// The worst error seen; infinite once one was no number, which a plain maximum would pass over.
class Worst {
 public:
  void see(double error) {
    worst_ = std::max(worst_, std::isnan(error) ? std::numeric_limits<double>::infinity() : error);
  }
  operator double() const { return worst_; }

 private:
  double worst_ = 0;
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

} // namespace tenon::cpu::test

// Numbers, weights and tolerances for tests of kernels. Thread: values; any.
#pragma once

#include "kernels/cpu/product.hpp"

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

// What rounding may cost, relative to the sum of the absolute values of a product's or formula's terms. The integer
// formats: against the same dequantised weights and quantised rows, where every sum of a group is exact. Attention:
// against the same rounded queries, keys and values. Over bf16 its weights are rounded as well, to 8 bits; over int8,
// times the values' steps, to 127 steps of the largest among 32 positions, so that small ones beside a large one err by
// their own size. A run of blocks: of the size of what it adds, against formulas without any rounding; rows are rounded
// before each product, integers by half a percent of their size, ten times on the way.
struct Tolerance {
  double bf16 = 2e-6, integers = 1e-6, attention = 2e-6, attention_bf16 = 1.0 / 256, attention_int8 = 0.1,
         attention_gradient = 4e-6, run = 0.02, activation = 1e-6, elementwise = 2e-6, strengths = 2e-6, loss = 4e-6;
};
constexpr Tolerance kTolerance;

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

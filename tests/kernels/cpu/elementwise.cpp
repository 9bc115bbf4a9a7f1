// Kernels over single numbers, at lengths about a vector's ends, against their formulas in double precision.
#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

namespace tenon::cpu {
namespace {

using namespace test;

constexpr std::int64_t kLongest = 70; // four vectors of the widest tier, and a rest

// A formula's error relative to the size of what it sums up.
double relative(double found, double exact, double size) { return std::abs(found - exact) / (size + 1e-30); }

template <class Each>
void for_lengths(const Each& each) {
  for (const Tier tier : supported_tiers())
    for (std::int64_t count = 0; count < kLongest; ++count)
      for (const float scale : {0.01f, 1.0f, 20.0f, 90.0f}) {
        CAPTURE(tier_name(tier), count, scale);
        each(kernels_of(tier), count, scale);
      }
}

// One number more than a kernel is given: it must stay.
constexpr float kGuard = 7.0f;
std::vector<float> guarded(std::int64_t count, std::uint64_t seed, float scale) {
  std::vector<float> out = noise(count, seed, scale);
  out.push_back(kGuard);
  return out;
}

} // namespace

TEST_CASE("gates and their gradients are those of their formulas in every tier and length, and write no further") {
  for_lengths([](const Kernels& kernels, std::int64_t count, float scale) {
    const std::vector<float> gate = guarded(count, 1, scale), up = guarded(count, 2, 3.0f), d = guarded(count, 3, 1.0f);
    std::vector<float> product = gate, gelu = gate, d_gate = guarded(count, 4, 1.0f), d_up = d_gate;
    kernels.silu_multiply(product.data(), up.data(), count);
    kernels.gelu(gelu.data(), count);
    kernels.silu_gradient(gate.data(), up.data(), d.data(), d_gate.data(), d_up.data(), count);
    for (const auto* out : {&product, &gelu, &d_gate, &d_up}) CHECK(out->back() == kGuard);

    Worst of_product, of_gelu, of_gate, of_up;
    for (std::int64_t i = 0; i < count; ++i) {
      const double g = gate[i], u = up[i], y = d[i], s = 1 / (1 + std::exp(-g)),
                   inner = std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
      of_product.see(relative(product[i], g * s * u, std::abs(g * s * u)));
      of_gelu.see(relative(gelu[i], 0.5 * g * (1 + std::tanh(inner)), std::abs(g)));
      of_gate.see(
          relative(d_gate[i], y * u * s * (1 + g * (1 - s)), std::abs(y * u) * s * (1 + std::abs(g) * (1 - s))));
      of_up.see(relative(d_up[i], y * g * s, std::abs(y * g * s)));
    }
    for (const double worst : {double{of_product}, double{of_gelu}, double{of_gate}, double{of_up}})
      CHECK(worst < kTolerance.elementwise);
  });
}

TEST_CASE("a gate's gradients may take the places of what they are made of") {
  for_lengths([](const Kernels& kernels, std::int64_t count, float scale) {
    std::vector<float> gate = noise(count, 1, scale), up = noise(count, 2), d_gate(gate.size()), d_up(gate.size());
    const std::vector<float> d = noise(count, 3);
    kernels.silu_gradient(gate.data(), up.data(), d.data(), d_gate.data(), d_up.data(), count);
    kernels.silu_gradient(gate.data(), up.data(), d.data(), gate.data(), up.data(), count);
    CHECK(same_bits(gate, d_gate));
    CHECK(same_bits(up, d_up));
  });
}

TEST_CASE("scaled sums and dot products are those of double precision in every tier and length") {
  for_lengths([](const Kernels& kernels, std::int64_t count, float scale) {
    const std::vector<float> x = noise(count, 1, scale), before = guarded(count, 2, 1.0f);
    std::vector<float> y = before;
    kernels.add_scaled(0.7f, x.data(), y.data(), count);
    CHECK(y.back() == kGuard);
    Worst of_sum, of_dot;
    double dot = 0, size = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const double term = double{0.7f} * x[i], product = double{x[i]} * before[i];
      of_sum.see(relative(y[i], term + before[i], std::abs(term) + std::abs(before[i])));
      dot += product, size += std::abs(product);
    }
    of_dot.see(relative(kernels.dot(x.data(), before.data(), count), dot, size));
    CHECK(of_sum < kTolerance.elementwise);
    CHECK(of_dot < kTolerance.elementwise);
  });
}

} // namespace tenon::cpu

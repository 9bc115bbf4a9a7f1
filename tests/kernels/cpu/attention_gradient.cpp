#include "kernels/cpu/attention.hpp"

#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

namespace tenon::cpu {
namespace {

using namespace test;

// A sequence, a gradient towards its attention, and what a tier makes of them. Behind d_q, d_k and d_v stands a guard.
struct Case {
  HeadShape shape;
  std::int64_t length;
  std::vector<float> q, k, v, d_y, y, log_sum, d_q, d_k, d_v;

  Case(HeadShape shape, std::int64_t length)
      : shape(shape),
        length(length),
        q(noise(length * shape.q_width(), 1, 2.0f)),
        k(noise(length * shape.kv_width(), 2, 2.0f)),
        v(noise(length * shape.kv_width(), 3)),
        d_y(noise(length * shape.q_width(), 4)),
        y(q.size()),
        log_sum(static_cast<std::size_t>(length * shape.heads)),
        d_q(q.size() + 1, kGuard),
        d_k(d_q),
        d_v(d_q) {}

  void run(const Kernels& kernels) {
    Arena arena;
    std::vector<const float*> keys, values;
    for (std::int64_t first = 0; first < length; first += kChunk) {
      keys.push_back(k.data() + first * shape.kv_width());
      values.push_back(v.data() + first * shape.kv_width());
    }
    const AttentionSpan span{0, length, 0, keys.data(), values.data()};
    auto* memory = arena.take<float>(attention_memory(shape));
    for (std::int64_t task = 0; task < attention_tasks(shape, span); ++task)
      attend_task(kernels, shape, q.data(), span, task, memory, y.data(), log_sum.data());
    memory = arena.take<float>(attention_gradient_memory(shape, length));
    for (std::int64_t head = 0; head < shape.heads; ++head)
      attention_gradient_task(kernels,
                              {shape, length, q.data(), k.data(), v.data(), y.data(), log_sum.data(), d_y.data(),
                               d_q.data(), d_k.data(), d_v.data()},
                              head, memory);
  }

  static constexpr float kGuard = 7.0f;
};

// What the formulas give for one head, in double precision, and the size of the terms that were summed up.
struct Exact {
  std::vector<double> d_q, d_k, d_v, size_q, size_k, size_v, log_sum; // (T,D), but log_sum (T)

  Exact(const Case& one, std::int64_t head) {
    const std::int64_t depth = one.shape.depth, q_width = one.shape.q_width(), kv_width = one.shape.kv_width(),
                       group = head / (one.shape.heads / one.shape.kv_heads);
    const double scale = 1 / std::sqrt(static_cast<double>(depth));
    const auto q = [&](std::int64_t t, std::int64_t d) -> double { return one.q[t * q_width + head * depth + d]; };
    const auto d_y = [&](std::int64_t t, std::int64_t d) -> double { return one.d_y[t * q_width + head * depth + d]; };
    const auto k = [&](std::int64_t t, std::int64_t d) -> double { return one.k[t * kv_width + group * depth + d]; };
    const auto v = [&](std::int64_t t, std::int64_t d) -> double { return one.v[t * kv_width + group * depth + d]; };
    for (auto* out : {&d_q, &d_k, &d_v, &size_q, &size_k, &size_v}) out->resize(one.length * depth);
    for (std::int64_t t = 0; t < one.length; ++t) {
      std::vector<double> weight(t + 1), change(t + 1), large(t + 1);
      double total = 0, dot = 0, dot_size = 0;
      for (std::int64_t j = 0; j <= t; ++j) {
        double score = 0;
        for (std::int64_t d = 0; d < depth; ++d) {
          score += q(t, d) * k(j, d) * scale;
          change[j] += d_y(t, d) * v(j, d), large[j] += std::abs(d_y(t, d) * v(j, d));
        }
        total += weight[j] = std::exp(score);
      }
      log_sum.push_back(std::log(total));
      for (std::int64_t j = 0; j <= t; ++j) {
        weight[j] /= total;
        dot += weight[j] * change[j], dot_size += weight[j] * large[j];
      }
      for (std::int64_t j = 0; j <= t; ++j) {
        const double towards = weight[j] * (change[j] - dot) * scale, size = weight[j] * (large[j] + dot_size) * scale;
        for (std::int64_t d = 0; d < depth; ++d) {
          const std::int64_t row = t * depth + d, key = j * depth + d;
          d_q[row] += towards * k(j, d), size_q[row] += size * std::abs(k(j, d));
          d_k[key] += towards * q(t, d), size_k[key] += size * std::abs(q(t, d));
          d_v[key] += weight[j] * d_y(t, d), size_v[key] += weight[j] * std::abs(d_y(t, d));
        }
      }
    }
  }
};

} // namespace

TEST_CASE("attention's gradients are those of its formulas in double precision, in every tier and shape") {
  struct Size {
    HeadShape shape;
    std::int64_t length;
  };
  const Size sizes[] = {{{1, 1, 8}, 1},   {{3, 1, 64}, 7},   {{4, 2, 3}, 48},  {{2, 2, 80}, 65},
                        {{2, 1, 20}, 70}, {{1, 1, 16}, 256}, {{2, 1, 4}, 300}, {{1, 1, 4}, 530}};
  for (const auto& [shape, length] : sizes) {
    std::vector<Exact> exact;
    for (std::int64_t head = 0; head < shape.heads; ++head) exact.emplace_back(Case(shape, length), head);
    for (const Tier tier : supported_tiers()) {
      CAPTURE(tier_name(tier), shape.heads, shape.kv_heads, shape.depth, length);
      Case one(shape, length);
      one.run(kernels_of(tier));
      for (const auto* out : {&one.d_q, &one.d_k, &one.d_v}) CHECK(out->back() == Case::kGuard);
      Worst worst_q, worst_k, worst_v, worst_sum;
      for (std::int64_t head = 0; head < shape.heads; ++head) {
        const Exact& of = exact[static_cast<std::size_t>(head)];
        for (std::int64_t t = 0; t < length; ++t) {
          worst_sum.see(std::abs(one.log_sum[t * shape.heads + head] - of.log_sum[t]));
          for (std::int64_t d = 0; d < shape.depth; ++d) {
            const std::int64_t at = t * shape.q_width() + head * shape.depth + d, i = t * shape.depth + d;
            worst_q.see(std::abs(one.d_q[at] - of.d_q[i]) / (of.size_q[i] + 1e-30));
            worst_k.see(std::abs(one.d_k[at] - of.d_k[i]) / (of.size_k[i] + 1e-30));
            worst_v.see(std::abs(one.d_v[at] - of.d_v[i]) / (of.size_v[i] + 1e-30));
          }
        }
      }
      CHECK(worst_q < kTolerance.attention_gradient);
      CHECK(worst_k < kTolerance.attention_gradient);
      CHECK(worst_v < kTolerance.attention_gradient);
      CHECK(worst_sum < kTolerance.log_sum);
    }
  }
}

TEST_CASE("a gradient that is not finite is seen where it flows, and nowhere before") {
  for (const Tier tier : supported_tiers()) {
    CAPTURE(tier_name(tier));
    Case one({1, 1, 8}, 60);
    one.d_y[50 * 8] = std::nanf("");
    one.run(kernels_of(tier));
    CHECK(std::isfinite(one.d_q[49 * 8]));
    CHECK_FALSE(std::isfinite(one.d_q[50 * 8]));
    CHECK_FALSE(std::isfinite(one.d_v[0]));
    CHECK(std::isfinite(one.d_q[51 * 8]));
  }
}

} // namespace tenon::cpu

#include "kernels/cpu/attention.hpp"

#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

namespace tenon::cpu {
namespace {

using namespace test;

struct Sequence {
  HeadShape shape;
  std::int64_t length;
  std::vector<float> q, k, v;
  Sequence(HeadShape shape, std::int64_t length)
      : shape(shape),
        length(length),
        q(noise(length * shape.q_width(), 1, 2.0f)),
        k(noise(length * shape.kv_width(), 2, 2.0f)),
        v(noise(length * shape.kv_width(), 3)) {}

  // Of positions [first, last).
  std::vector<float> run(const Engine& engine, std::int64_t first, std::int64_t last) const {
    Arena arena;
    std::vector<float> y(static_cast<std::size_t>((last - first) * shape.q_width()));
    const AttentionSpan span{0, last - first, first, k.data(), v.data()};
    attend(engine, arena, shape, q.data() + first * shape.q_width(), {&span, 1}, y.data());
    return y;
  }
  double expected(std::int64_t t, std::int64_t head, std::int64_t d) const {
    const std::int64_t group = head / (shape.heads / shape.kv_heads);
    double total = 0, sum = 0;
    for (std::int64_t j = 0; j <= t; ++j) {
      double score = 0;
      for (std::int64_t i = 0; i < shape.depth; ++i)
        score += static_cast<double>(q[t * shape.q_width() + head * shape.depth + i]) *
                 k[j * shape.kv_width() + group * shape.depth + i];
      const double p = std::exp(score / std::sqrt(static_cast<double>(shape.depth)));
      total += p, sum += p * v[j * shape.kv_width() + group * shape.depth + d];
    }
    return sum / total;
  }
};

} // namespace

TEST_CASE("every tier attends as a double-precision softmax does") {
  const HeadShape shapes[] = {{1, 1, 8}, {9, 3, 64}, {4, 1, 20}, {4, 2, 3}, {2, 2, 80}};
  Pool pool(2);
  for (const Tier tier : supported_tiers())
    for (const HeadShape& shape : shapes) {
      CAPTURE(tier_name(tier), shape.heads, shape.kv_heads, shape.depth);
      const Sequence sequence(shape, 300);
      const std::vector<float> y = sequence.run({&kernels_of(tier), &pool}, 0, 300);
      for (const std::int64_t t : {0, 1, 63, 64, 255, 256, 299})
        for (std::int64_t head = 0; head < shape.heads; ++head)
          for (std::int64_t d = 0; d < shape.depth; ++d)
            CHECK(y[t * shape.q_width() + head * shape.depth + d] ==
                  Approx(sequence.expected(t, head, d)).epsilon(kTolerance.attention).margin(2e-6));
    }
}

TEST_CASE("attention gives a position the same bits alone, in a prompt, and in any split, whatever the threads") {
  const HeadShape shape{6, 2, 32};
  const Sequence sequence(shape, 530);
  Pool alone(1), several(3);
  for (const Tier tier : supported_tiers()) {
    CAPTURE(tier_name(tier));
    const Engine one{&kernels_of(tier), &alone}, many{&kernels_of(tier), &several};
    const std::vector<float> whole = sequence.run(one, 0, 530);
    CHECK(same_bits(whole, sequence.run(many, 0, 530)));
    const std::int64_t ends[] = {1, 2, 9, 16, 17, 255, 256, 258, 300, 513, 529, 530};
    std::int64_t first = 0;
    for (const std::int64_t last : ends) {
      CAPTURE(first, last);
      const std::vector<float> expected(whole.begin() + first * shape.q_width(),
                                        whole.begin() + last * shape.q_width());
      CHECK(same_bits(sequence.run(many, first, last), expected));
      CHECK(same_bits(sequence.run(one, first, last), expected));
      first = last;
    }
  }
}

} // namespace tenon::cpu

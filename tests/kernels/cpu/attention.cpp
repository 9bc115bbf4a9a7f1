#include "kernels/cpu/attention.hpp"

#include "tests/kernels/cpu/support.hpp"

#include <catch2/catch.hpp>

namespace tenon::cpu {
namespace {

using namespace test;

constexpr KeyFormat kKeyFormats[] = {KeyFormat::float32, KeyFormat::bf16, KeyFormat::int8};

double tolerance(KeyFormat format) {
  return format == KeyFormat::float32 ? kTolerance.attention
         : format == KeyFormat::bf16  ? kTolerance.attention_bf16
                                      : kTolerance.attention_int8;
}

// A sequence's keys and values in chunks whose memory held no numbers before.
class Kept {
 public:
  Kept(const HeadShape& shape, KeyFormat format, std::int64_t length) : shape_(shape), format_(format) {
    for (std::int64_t at = 0; at < length; at += kChunk) {
      k_.push_back(chunk(key_width(format, shape)));
      v_.push_back(chunk(value_width(format, shape)));
    }
  }
  void put(const Kernels& kernels, const float* k, const float* v, std::int64_t first, std::int64_t count) {
    put_keys(kernels, format_, shape_, k, first, count, k_.data());
    put_values(kernels, format_, shape_, v, first, count, v_.data());
  }
  std::vector<float> keys(std::int64_t count) const {
    std::vector<float> rows(static_cast<std::size_t>(count * shape_.kv_width()));
    get_keys(format_, shape_, k_.data(), 0, count, rows.data());
    return rows;
  }
  std::vector<float> values(std::int64_t count) const {
    std::vector<float> rows(static_cast<std::size_t>(count * shape_.kv_width()));
    get_values(format_, shape_, v_.data(), 0, count, rows.data());
    return rows;
  }
  AttentionSpan span(std::int64_t past, std::int64_t length) const {
    return {0, length, past, k_.data(), v_.data(), format_};
  }

 private:
  float* chunk(std::int64_t width) {
    auto* memory = arena_.take<float>(kChunk * width);
    std::memset(memory, 0xff, static_cast<std::size_t>(kChunk * width) * sizeof(float));
    return memory;
  }
  HeadShape shape_;
  KeyFormat format_;
  Arena arena_;
  std::vector<float*> k_, v_;
};

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

  // The next positions up to `last`, behind the first that are kept.
  std::vector<float> run(const Engine& engine, Kept& kept, std::int64_t first, std::int64_t last) const {
    Arena arena;
    std::vector<float> y(static_cast<std::size_t>((last - first) * shape.q_width()));
    kept.put(*engine.kernels, k.data() + first * shape.kv_width(), v.data() + first * shape.kv_width(), first,
             last - first);
    const AttentionSpan span = kept.span(first, last - first);
    attend(engine, arena, shape, q.data() + first * shape.q_width(), {&span, 1}, y.data());
    return y;
  }
  std::vector<float> whole(const Engine& engine, KeyFormat format) const {
    Kept kept(shape, format, length);
    return run(engine, kept, 0, length);
  }

  // The same with numbers as the format keeps them.
  Sequence seen(KeyFormat format) const {
    Sequence out = *this;
    const float scale = 1.0f / std::sqrt(static_cast<float>(shape.depth));
    for (float& one : out.q) one *= scale;
    for (std::vector<float>* x : {&out.q, &out.k, &out.v}) {
      if (format == KeyFormat::bf16)
        for (float& one : *x) one = nn::bf16_to_f32(nn::f32_to_bf16(one));
      const std::size_t group = x == &out.v ? static_cast<std::size_t>(shape.depth) : kGroup;
      for (std::size_t at = 0; format == KeyFormat::int8 && at < x->size(); at += group)
        step(*x, at, group, x == &out.k);
    }
    return out;
  }

  // What attention says and how large the terms of its sum are; and how large they would be if all of a position's
  // values were as large as its largest, whose step they share in int8.
  struct Expected {
    double value, size, size_of_steps;
  };
  Expected expected(std::int64_t t, std::int64_t head, std::int64_t d) const {
    const std::int64_t group = head / (shape.heads / shape.kv_heads);
    double total = 0, sum = 0, size = 0, size_of_steps = 0;
    for (std::int64_t j = 0; j <= t; ++j) {
      double score = 0;
      for (std::int64_t i = 0; i < shape.depth; ++i)
        score += static_cast<double>(q[t * shape.q_width() + head * shape.depth + i]) *
                 k[j * shape.kv_width() + group * shape.depth + i];
      const float* values = v.data() + j * shape.kv_width() + group * shape.depth;
      const double p = std::exp(score), value = values[d];
      double largest = 0;
      for (std::int64_t i = 0; i < shape.depth; ++i) largest = std::max<double>(largest, std::abs(values[i]));
      total += p, sum += p * value, size += p * std::abs(value), size_of_steps += p * largest;
    }
    return {sum / total, size / total, size_of_steps / total};
  }

 private:
  static void step(std::vector<float>& x, std::size_t first, std::size_t count, bool half) {
    float largest = 0;
    for (std::size_t i = first; i < first + count; ++i) largest = std::max(largest, std::abs(x[i]));
    const float exact = largest / 127.0f,
                kept = half ? nn::f16_to_f32(nn::f32_to_f16(exact)) : nn::bf16_to_f32(nn::f32_to_bf16(exact));
    for (std::size_t i = first; i < first + count; ++i) x[i] = std::nearbyint(x[i] / (half ? exact : kept)) * kept;
  }
};

} // namespace

TEST_CASE("every tier attends as a double-precision softmax does, over every form of keys and values") {
  const HeadShape shapes[] = {{1, 1, 8}, {9, 3, 64}, {4, 1, 20}, {4, 2, 3}, {2, 2, 80}, {6, 3, 32}, {2, 1, 128}};
  Pool pool(2);
  for (const Tier tier : supported_tiers())
    for (const KeyFormat format : kKeyFormats)
      for (const HeadShape& shape : shapes) {
        CAPTURE(tier_name(tier), key_format_name(format), shape.heads, shape.kv_heads, shape.depth);
        if (!holds(format, shape)) continue;
        const Sequence sequence(shape, 300);
        const std::vector<float> y = sequence.whole({&kernels_of(tier), &pool}, format);
        const Sequence seen = sequence.seen(format);
        for (const std::int64_t t : {0, 1, 63, 64, 255, 256, 299})
          for (std::int64_t head = 0; head < shape.heads; ++head)
            for (std::int64_t d = 0; d < shape.depth; ++d) {
              const auto [value, size, size_of_steps] = seen.expected(t, head, d);
              CHECK(std::abs(y[t * shape.q_width() + head * shape.depth + d] - value) <=
                    tolerance(format) * (format == KeyFormat::int8 ? size_of_steps : size));
            }
      }
}

TEST_CASE("attention gives a position the same bits alone, in a prompt, and in any split, whatever the threads") {
  const Sequence sequence({6, 2, 32}, 530);
  const std::int64_t width = sequence.shape.q_width();
  Pool alone(1), several(3);
  for (const Tier tier : supported_tiers())
    for (const KeyFormat format : kKeyFormats) {
      CAPTURE(tier_name(tier), key_format_name(format));
      const Engine one{&kernels_of(tier), &alone}, many{&kernels_of(tier), &several};
      const std::vector<float> whole = sequence.whole(one, format);
      CHECK(same_bits(whole, sequence.whole(many, format)));
      Kept kept(sequence.shape, format, 530), others(sequence.shape, format, 530);
      std::int64_t first = 0;
      for (const std::int64_t last : {1, 2, 9, 16, 17, 255, 256, 258, 300, 513, 529, 530}) {
        CAPTURE(first, last);
        const std::vector<float> expected(whole.begin() + first * width, whole.begin() + last * width);
        CHECK(same_bits(sequence.run(many, kept, first, last), expected));
        CHECK(same_bits(sequence.run(one, others, first, last), expected));
        first = last;
      }
    }
}

TEST_CASE("attention gives a sequence the same bits alone and beside others, long, short and empty") {
  const HeadShape shape{4, 2, 32};
  struct Member {
    std::int64_t past, length;
  };
  // Few tiles in all, with one past that is taken chunk by chunk; and many.
  const std::vector<Member> companies[] = {
      {{600, 1}, {3, 0}, {5, 2}}, {{3, 0}, {600, 1}, {7, 1}, {255, 1}, {256, 1}, {0, 70}, {9, 0}, {300, 1}, {1, 0}}};
  Pool pool(2);
  for (const Tier tier : supported_tiers())
    for (const auto& members : companies) {
      CAPTURE(tier_name(tier), members.size());
      const Engine engine{&kernels_of(tier), &pool};
      std::vector<Kept> kept;
      std::vector<AttentionSpan> spans;
      std::vector<float> q, expected;
      for (const auto& [past, length] : members) {
        const Sequence sequence(shape, past + length);
        Kept& own = kept.emplace_back(shape, KeyFormat::bf16, past + length);
        (void)sequence.run(engine, own, 0, past);
        const std::vector<float> y = sequence.run(engine, own, past, past + length);
        spans.push_back(own.span(past, length));
        spans.back().offset = static_cast<std::int64_t>(expected.size()) / shape.q_width();
        q.insert(q.end(), sequence.q.begin() + past * shape.q_width(), sequence.q.end());
        expected.insert(expected.end(), y.begin(), y.end());
      }
      std::vector<float> y(expected.size());
      Arena arena;
      attend(engine, arena, shape, q.data(), spans, y.data());
      CHECK(same_bits(y, expected));
    }
}

TEST_CASE("a sequence that was cut back and goes on forgets what was cut off") {
  const Sequence sequence({2, 1, 32}, 40), other({2, 1, 32}, 60);
  Pool pool(1);
  for (const Tier tier : supported_tiers())
    for (const KeyFormat format : kKeyFormats) {
      const Engine engine{&kernels_of(tier), &pool};
      Kept kept(sequence.shape, format, 60);
      const std::vector<float> whole = sequence.whole(engine, format);
      for (const std::int64_t cut : {7, 8}) {
        CAPTURE(tier_name(tier), key_format_name(format), cut);
        sequence.run(engine, kept, 0, cut);
        other.run(engine, kept, cut, 60);
        const std::vector<float> expected(whole.begin() + cut * 64, whole.begin() + (cut + 1) * 64);
        CHECK(same_bits(sequence.run(engine, kept, cut, cut + 1), expected));
      }
    }
}

TEST_CASE("rows come back as their form keeps them, and are kept again with the same bits") {
  const Sequence sequence({4, 2, 32}, 300);
  const Kernels& kernels = kernels_of(supported_tiers().back());
  for (const KeyFormat format : kKeyFormats) {
    CAPTURE(key_format_name(format));
    Kept kept(sequence.shape, format, 300), again(sequence.shape, format, 300);
    kept.put(kernels, sequence.k.data(), sequence.v.data(), 0, 300);
    const std::vector<float> k = kept.keys(300), v = kept.values(300);
    again.put(kernels, k.data(), v.data(), 0, 300);
    CHECK(same_bits(again.keys(300), k));
    CHECK(same_bits(again.values(300), v));
    const Sequence seen = sequence.seen(format);
    Worst worst;
    for (std::size_t i = 0; i < k.size(); ++i) {
      worst.see(std::abs(static_cast<double>(k[i]) - seen.k[i]));
      worst.see(std::abs(static_cast<double>(v[i]) - seen.v[i]));
    }
    CHECK(worst <= (format == KeyFormat::int8 ? kTolerance.kept_int8 : 0.0));
  }
}

TEST_CASE("keys and values that are not finite never look finite") {
  const HeadShape shape{2, 1, 32};
  for (const Tier tier : supported_tiers())
    for (const KeyFormat format : kKeyFormats)
      for (const float bad : {std::nanf(""), INFINITY}) {
        CAPTURE(tier_name(tier), key_format_name(format), bad);
        Sequence sequence(shape, 3);
        sequence.v[40] = bad;
        Pool pool(1);
        const std::vector<float> y = sequence.whole({&kernels_of(tier), &pool}, format);
        CHECK_FALSE(std::isfinite(y[1 * 64 + 8]));
      }
}

} // namespace tenon::cpu

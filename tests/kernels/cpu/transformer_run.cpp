#include "kernels/cpu/transformer_run.hpp"

#include "tests/kernels/cpu/support.hpp"
#include "tests/support/counted_new.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <utility>

namespace tenon::cpu {
namespace {

using namespace test;

constexpr std::int64_t kWidth = 64, kInner = 96, kBlocks = 2;
constexpr HeadShape kHeads{4, 2, 32};

// Room for the keys and values of some sequences.
class Store : public KeyValueStore {
 public:
  Store(KeyFormat format, std::size_t sequences, std::int64_t positions)
      : lengths_(kBlocks, std::vector<std::int64_t>(sequences)) {
    const auto chunks = [&](std::int64_t width) {
      std::vector<float*> out;
      for (std::int64_t at = 0; at < positions; at += kChunk) out.push_back(arena_.take<float>(kChunk * width));
      return out;
    };
    for (std::size_t i = 0; i < kBlocks * sequences; ++i) {
      k_.push_back(chunks(key_width(format, kHeads)));
      v_.push_back(chunks(value_width(format, kHeads)));
    }
  }
  // What the next run's spans are.
  void next(std::span<const RunSpan> spans) { spans_ = spans; }
  KeyValues extend(std::int64_t block, std::int64_t span) override {
    std::int64_t& length = lengths_[block][span];
    const std::size_t at = static_cast<std::size_t>(span) * kBlocks + static_cast<std::size_t>(block);
    return {std::exchange(length, length + spans_[span].length), k_[at].data(), v_[at].data()};
  }

 private:
  Arena arena_;
  std::vector<std::vector<float*>> k_, v_;
  std::vector<std::vector<std::int64_t>> lengths_;
  std::span<const RunSpan> spans_;
};

struct Model {
  std::vector<Weights> weights;
  std::vector<float> ones = std::vector<float>(kWidth, 1.0f);
  std::vector<Block> blocks;
  RunShape shape{kHeads, 1e-5, 10000.0};

  explicit Model(PackedFormat format) {
    const auto linear = [&](std::int64_t outputs, std::int64_t inputs) {
      weights.emplace_back(format, outputs, inputs, noise(outputs * inputs, weights.size() + 1, 0.2f));
      return Linear{weights.back().matrix};
    };
    for (std::int64_t i = 0; i < kBlocks; ++i) {
      Block block;
      block.q = linear(kHeads.q_width(), kWidth), block.k = linear(kHeads.kv_width(), kWidth),
      block.v = linear(kHeads.kv_width(), kWidth);
      block.o = linear(kWidth, kHeads.q_width());
      block.gate = linear(kInner, kWidth), block.up = linear(kInner, kWidth), block.down = linear(kWidth, kInner);
      block.attention_norm = block.ffn_norm = {ones.data(), nullptr};
      blocks.push_back(block);
    }
  }
  std::vector<float> run(const Engine& engine, Arena& arena, Store& store, std::span<const RunSpan> spans,
                         std::vector<float> h) const {
    arena.reset();
    store.next(spans);
    const std::span<const Block> alone[] = {blocks};
    run_blocks(engine, arena, shape, alone, spans, store, h.data(), static_cast<std::int64_t>(h.size()) / kWidth);
    return h;
  }
};

std::vector<float> part(const std::vector<float>& h, std::int64_t first, std::int64_t count) {
  return {h.begin() + first * kWidth, h.begin() + (first + count) * kWidth};
}

} // namespace

#ifndef __SANITIZE_ADDRESS__
TEST_CASE("a run of blocks asks for no memory once it has run at its largest") {
  Pool pool(1);
  for (const PackedFormat format : kFormats) {
    CAPTURE(packed_name(format));
    const Engine engine{&kernels_of(supported_tiers().back()), &pool};
    const Model model(format);
    Store store(model.shape.keys, 1, 600);
    Arena arena;
    std::vector<float> prompt = noise(100 * kWidth, 3), row = noise(kWidth, 4);
    const auto step = [&](std::vector<float>& h, std::int64_t position) {
      const RunSpan span{0, static_cast<std::int64_t>(h.size()) / kWidth, position};
      arena.reset();
      store.next({&span, 1});
      const std::span<const Block> alone[] = {model.blocks};
      run_blocks(engine, arena, model.shape, alone, {&span, 1}, store, h.data(), span.length);
    };
    std::int64_t position = 0;
    for (int i = 0; i < 3; ++i, position += 101) step(prompt, position), step(row, position + 100);
    const std::int64_t before = tenon::test::allocations;
    step(prompt, position), position += 100;
    for (int i = 0; i < 20; ++i) step(row, position++);
    CHECK(tenon::test::allocations == before);
    const auto one = std::make_unique<int>(1); // the count counts
    CHECK(tenon::test::allocations == before + 1);
  }
}
#endif

TEST_CASE("a run of blocks gives a row the same bits in any split, beside any other, whatever the threads") {
  Pool alone(1), several(3);
  const std::vector<float> h = noise(300 * kWidth, 5), other = noise(9 * kWidth, 6);
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats)
      for (const KeyFormat keys : {KeyFormat::float32, KeyFormat::bf16, KeyFormat::int8}) {
        CAPTURE(tier_name(tier), packed_name(format), key_format_name(keys));
        const Engine one{&kernels_of(tier), &alone}, many{&kernels_of(tier), &several};
        Model model(format);
        model.shape.keys = keys;
        Arena arena;
        Store whole(keys, 1, 300), parts(keys, 2, 300);
        const RunSpan all{0, 300, 0};
        const std::vector<float> expected = model.run(one, arena, whole, {&all, 1}, h);
        std::int64_t first = 0;
        for (const std::int64_t count : {1, 6, 1, 1, 250, 41}) {
          CAPTURE(first, count);
          const RunSpan spans[] = {{0, count, first}, {count, 1, 0}};
          std::vector<float> both = part(h, first, count);
          both.insert(both.end(), other.begin(), other.begin() + kWidth);
          CHECK(same_bits(part(model.run(many, arena, parts, spans, both), 0, count), part(expected, first, count)));
          first += count;
        }
      }
}

} // namespace tenon::cpu

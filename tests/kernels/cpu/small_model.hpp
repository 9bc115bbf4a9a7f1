// A small model of packed blocks, and room for its keys and values. Thread: one.
#pragma once

#include "kernels/cpu/transformer_run.hpp"
#include "tests/kernels/cpu/support.hpp"

#include <utility>

namespace tenon::cpu::test {

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

// One sequence of a store's.
class OneOf : public KeyValueStore {
 public:
  OneOf(Store& store, std::int64_t sequence) : store_(store), sequence_(sequence) {}
  KeyValues extend(std::int64_t block, std::int64_t) override { return store_.extend(block, sequence_); }

 private:
  Store& store_;
  std::int64_t sequence_;
};

struct Model {
  std::vector<Weights> weights;
  std::vector<float> ones = std::vector<float>(kWidth, 1.0f);
  std::vector<Block> blocks;
  RunShape shape{kHeads, 1e-5, 10000.0};

  explicit Model(PackedFormat format, std::uint64_t number = 0) {
    const auto linear = [&](std::int64_t outputs, std::int64_t inputs) {
      weights.emplace_back(format, outputs, inputs, noise(outputs * inputs, 100 * number + weights.size() + 1, 0.2f));
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

} // namespace tenon::cpu::test

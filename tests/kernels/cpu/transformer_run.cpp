#include "kernels/cpu/transformer_run.hpp"
#include "kernels/cpu/faster_way.hpp"

#include "tests/kernels/cpu/small_model.hpp"
#include "tests/support/counted_new.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

namespace tenon::cpu {
namespace {

using namespace test;

std::vector<float> part(const std::vector<float>& h, std::int64_t first, std::int64_t count) {
  return {h.begin() + first * kWidth, h.begin() + (first + count) * kWidth};
}

} // namespace

#ifndef __SANITIZE_ADDRESS__
TEST_CASE("a run of blocks asks for no memory once it has run at its largest, whatever the threads") {
  Pool pool(GENERATE(1, 2));
  const Sharing sharing = GENERATE(Sharing::by_product, Sharing::apart);
  CAPTURE(pool.threads());
  for (const PackedFormat format : kFormats) {
    CAPTURE(packed_name(format));
    const Engine engine{&kernels_of(supported_tiers().back()), &pool, sharing};
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
  const Sharing sharing = GENERATE(Sharing::by_product, Sharing::apart);
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats)
      for (const KeyFormat keys : {KeyFormat::float32, KeyFormat::bf16, KeyFormat::int8}) {
        CAPTURE(tier_name(tier), packed_name(format), key_format_name(keys));
        const Engine one{&kernels_of(tier), &alone}, many{&kernels_of(tier), &several, sharing};
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

TEST_CASE("rows that nobody reads leave others, and those after them, the bits they have when all are read") {
  Pool several(3);
  const std::vector<float> h = noise(130 * kWidth, 9);
  const Sharing sharing = GENERATE(Sharing::by_product, Sharing::apart);
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats) {
      CAPTURE(tier_name(tier), packed_name(format));
      const Engine engine{&kernels_of(tier), &several, sharing};
      const Model model(format);
      Arena arena;
      Store all_read(model.shape.keys, 2, 300), some_read(model.shape.keys, 2, 300);
      std::int64_t position = 0;
      // Rows of either sequence, and how many of them are not read: none, some, or all.
      for (const auto& [one, other, unread_one, unread_other] :
           {std::array{7, 6, 6, 0}, {100, 30, 99, 30}, {60, 1, 17, 0}, {3, 3, 3, 3}, {1, 1, 0, 0}}) {
        CAPTURE(one, other, unread_one, unread_other);
        RunSpan spans[] = {{0, one, position}, {one, other, position}};
        const std::vector<float> rows = part(h, 0, one + other),
                                 expected = model.run(engine, arena, all_read, spans, rows);
        spans[0].unread = unread_one, spans[1].unread = unread_other;
        const std::vector<float> found = model.run(engine, arena, some_read, spans, rows);
        CHECK(same_bits(part(found, unread_one, one - unread_one), part(expected, unread_one, one - unread_one)));
        CHECK(same_bits(part(found, one + unread_other, other - unread_other),
                        part(expected, one + unread_other, other - unread_other)));
        position += 100;
      }
    }
}

// One way, the other, or by turns.
constexpr int kWays = 3;
Sharing way_of(int ways, std::int64_t step) {
  return (ways < 2 ? ways : step % 2) == 0 ? Sharing::by_product : Sharing::apart;
}

TEST_CASE("a few rows for every thread have the bits they have alone, each with its own change of low rank") {
  Pool alone(1), several(3);
  constexpr std::int64_t steps = 3, rank = 2;
  const std::vector<float> h = noise((49 + steps) * kWidth, 7), a_RC = noise(rank * kWidth, 8),
                           b_RF = noise(rank * kHeads.q_width(), 9);
  const int ways = GENERATE(range(0, kWays));
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats) {
      const Engine one{&kernels_of(tier), &alone};
      const Model model(format);
      std::vector<Block> changed = model.blocks;
      for (Block& block : changed) block.q.change = {rank, 0.5f, a_RC.data(), b_RF.data()};
      const std::span<const Block> runs[] = {model.blocks, changed};
      // Some may go by sequence or by rows, some are too few, or too uneven.
      for (const auto& [sequences, longest] : {std::pair{12, 1}, {13, 1}, {6, 2}, {3, 1}, {2, 9}, {48, 1}, {49, 1}}) {
        CAPTURE(tier_name(tier), packed_name(format), sequences, longest);
        const auto count = static_cast<std::size_t>(sequences);
        Arena arena;
        Store together(model.shape.keys, count, 64), apart(model.shape.keys, count, 64);
        std::vector<RunSpan> spans(count);
        for (std::int64_t step = 0, next = 0; step < steps; ++step, next = 0) {
          for (std::size_t s = 0; s < count; ++s, next += spans[s - 1].length)
            spans[s] = {next, s % 2 == 0 ? longest : 1, step * (s % 2 == 0 ? longest : 1), s % 2};
          const auto first = h.begin() + step * kWidth; // other numbers in every step
          std::vector<float> all(first, first + next * kWidth);
          const std::vector<float> before = all;
          arena.reset(), together.next(spans);
          const Engine many{&kernels_of(tier), &several, way_of(ways, step)};
          run_blocks(many, arena, model.shape, runs, spans, together, all.data(), next);
          apart.next(spans);
          for (std::size_t s = 0; s < count; ++s) {
            std::vector<float> own = part(before, spans[s].offset, spans[s].length);
            RunSpan span = spans[s];
            span.offset = 0;
            arena.reset();
            OneOf store(apart, static_cast<std::int64_t>(s));
            run_blocks(one, arena, model.shape, runs, {&span, 1}, store, own.data(), span.length);
            CHECK(same_bits(part(all, spans[s].offset, span.length), own));
          }
        }
      }
    }
}

TEST_CASE("runs on weights of their own have beside each other the bits they have alone") {
  Pool alone(1), several(3);
  const std::vector<float> h = noise(80 * kWidth, 11);
  const int ways = GENERATE(range(0, kWays));
  for (const Tier tier : supported_tiers())
    for (const PackedFormat format : kFormats) {
      const Engine one{&kernels_of(tier), &alone};
      const std::unique_ptr<Model> models[] = {std::make_unique<Model>(format, 1), std::make_unique<Model>(format, 2),
                                               std::make_unique<Model>(format, 3), std::make_unique<Model>(format, 4)};
      // Runs and rows of spans: fewer runs than threads, as many, one left over, and one that is too long.
      const std::vector<std::pair<std::size_t, std::int64_t>> cases[] = {{{0, 1}, {1, 1}},
                                                                         {{0, 1}, {1, 2}, {1, 1}, {2, 3}},
                                                                         {{0, 1}, {1, 1}, {1, 1}, {2, 5}, {3, 1}},
                                                                         {{0, 1}, {1, 1}, {2, 17}, {3, 1}}};
      for (const auto& lengths : cases) {
        CAPTURE(tier_name(tier), packed_name(format), lengths.size());
        std::vector<std::span<const Block>> runs;
        std::vector<RunSpan> spans;
        std::int64_t rows = 0;
        for (const auto& [run, length] : lengths) {
          if (run == runs.size()) runs.push_back(models[run]->blocks);
          spans.push_back({rows, length, 0, run});
          rows += length;
        }
        Arena arena;
        Store together(KeyFormat::bf16, spans.size(), 64), apart(KeyFormat::bf16, spans.size(), 64);
        for (int step = 0; step < 3; ++step) {
          std::vector<float> all(h.begin(), h.begin() + rows * kWidth);
          arena.reset(), together.next(spans), apart.next(spans);
          const Engine many{&kernels_of(tier), &several, way_of(ways, step)};
          run_apart(many, arena, models[0]->shape, runs, spans, together, all.data());
          for (std::size_t s = 0; s < spans.size(); ++s) {
            std::vector<float> own = part(h, spans[s].offset, spans[s].length);
            const RunSpan span{0, spans[s].length, spans[s].position};
            OneOf store(apart, static_cast<std::int64_t>(s));
            arena.reset();
            run_blocks(one, arena, models[0]->shape, {&runs[spans[s].run], 1}, {&span, 1}, store, own.data(),
                       span.length);
            CHECK(same_bits(part(all, spans[s].offset, span.length), own));
          }
          for (RunSpan& span : spans) span.position += span.length;
        }
      }
    }
}

TEST_CASE("of two ways to the same result the faster is gone, and is left when the other becomes faster") {
  FasterWay ways;
  const std::uint32_t trial = GENERATE(FasterWay::kTrial, FasterWay::kLongTrial), period = FasterWay::kTrials * trial;
  double time[] = {3.0, 2.0};
  const auto share_of_second = [&] { // over two periods: in the first it may be noticed late
    double second = 0;
    for (std::uint32_t i = 0; i < 2 * period; ++i) {
      const FasterWay::Choice choice = ways.choose(trial);
      ways.took(choice, time[choice.way]);
      if (i >= period) second += choice.way;
    }
    return second / period;
  };
  constexpr double trials = 1.0 / FasterWay::kTrials; // of the other way
  CHECK(share_of_second() == Approx(1 - trials));
  time[0] = 1.9;
  CHECK(share_of_second() == Approx(trials));
  time[0] = 4.0;
  CHECK(share_of_second() == Approx(1 - trials));
}

TEST_CASE("of two ways the faster is found though some calls are held up and the first of each tell nothing") {
  FasterWay ways;
  constexpr int calls = 2 * FasterWay::kTrials * FasterWay::kTrial;
  int first = 0;
  for (int i = 0; i < calls; ++i) {
    const FasterWay::Choice choice = ways.choose();
    const bool settles = i % FasterWay::kTrial < FasterWay::kTrial / 2, held_up = i % 5 == 0;
    ways.took(choice, choice.way == 1 ? held_up ? 20.0 : 2.0 : settles ? 0.1 : 3.0);
    first += choice.way == 0;
  }
  CHECK(first == 2 * FasterWay::kTrial); // its own trials
}

} // namespace tenon::cpu

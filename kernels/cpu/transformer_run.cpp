#include "kernels/cpu/transformer_run.hpp"

#include "kernels/cpu/faster_way.hpp"
#include "kernels/cpu/transformer_rows.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <memory>
#include <utility>

namespace tenon::cpu {
namespace {

using Runs = TransformerRows::Runs;

// Spans [first, last) and their rows.
struct Part {
  std::size_t first = 0, last = 0;
  std::int64_t offset = 0, rows = 0;
};

// Rows cut into parts, each of one thread, that meet in every block: pieces of spans, and of which span each is one.
struct Pieces {
  std::span<const RunSpan> spans;
  std::span<const Part> parts;
  const std::int64_t* whole;
  const KeyValues* first; // where the whole ones' keys and values stand for the first block
};

bool in_order(std::span<const RunSpan> spans, std::int64_t rows) {
  std::int64_t end = 0;
  for (const RunSpan& span : spans)
    if (std::exchange(end, end + span.length) != span.offset) return false;
  return end == rows;
}

// A few rows for every thread, of sequences of its own: nothing they work on goes from one processor's caches to
// another's, and nobody waits before the run ends, but every thread reads all weights. No parts where they would be
// uneven.
std::span<const Part> by_sequence(std::int64_t threads, Arena& arena, std::span<const RunSpan> spans,
                                  std::int64_t rows) {
  auto* parts = arena.take<Part>(threads);
  std::size_t next = 0;
  std::int64_t end = 0;
  for (std::int64_t t = 0; t < threads; ++t) {
    Part& part = parts[t] = {next, next, end, 0};
    for (; next < spans.size() && end < rows * (t + 1) / threads; ++next) end += spans[next].length;
    part.last = next, part.rows = end - part.offset;
    if (part.rows > (rows + threads - 1) / threads) return {};
  }
  return {parts, static_cast<std::size_t>(threads)};
}

// Many rows, cut where it is even: a thread's stay in its own caches, and threads meet but once a block, where the keys
// and values of all have found their places. Two parts a thread, since later rows look back at more.
Pieces by_rows(std::int64_t threads, Arena& arena, std::span<const RunSpan> spans, std::int64_t rows,
               KeyValueStore& store) {
  const std::int64_t count = 2 * threads, most = std::ssize(spans) + count;
  auto *pieces = arena.take<RunSpan>(most), *piece = pieces;
  auto *whole = arena.take<std::int64_t>(most), *of = whole;
  auto* parts = arena.take<Part>(count);
  auto* first_to = arena.take<KeyValues>(std::ssize(spans));
  for (std::int64_t i = 0; i < std::ssize(spans); ++i) first_to[i] = store.extend(0, i);
  std::int64_t row = 0, done = 0; // of all; of the span at hand
  std::size_t s = 0;
  for (std::int64_t p = 0; p < count; ++p) {
    const auto first = static_cast<std::size_t>(piece - pieces);
    const std::int64_t offset = row, end = rows * (p + 1) / count;
    while (row < end) {
      const RunSpan& span = spans[s];
      const std::int64_t place = first_to[s].past + done, end_place = (place + end - row + kKept - 1) / kKept * kKept,
                         length = std::min(span.length - done, end_place - place);
      *piece++ = {row, length, span.position + done, span.run, std::clamp<std::int64_t>(span.unread - done, 0, length)};
      *of++ = static_cast<std::int64_t>(s);
      row += length, done += length;
      if (done == span.length) ++s, done = 0;
    }
    parts[p] = {first, static_cast<std::size_t>(piece - pieces), offset, row - offset};
  }
  return {{pieces, piece}, {parts, static_cast<std::size_t>(count)}, whole, first_to};
}

// Which of both ways, shared out (1) or not (0), is faster for such weights and so many rows of a thread: each number
// of a few, more by powers of two.
using Ways = FasterWay[kPackedFormats][kFewRows + 64];
FasterWay& way_of(Ways& ways, const Block& block, std::int64_t rows) {
  const std::int64_t size = rows <= kFewRows ? rows : kFewRows + std::bit_width(static_cast<std::uint64_t>(rows));
  return ways[static_cast<std::size_t>(block.up.weight.format)][size];
}

// Of a part's spans, as that part's own.
std::span<const RunSpan> spans_of(Arena& arena, std::span<const RunSpan> spans, const Part& part) {
  auto* own = arena.take<RunSpan>(static_cast<std::int64_t>(part.last - part.first));
  auto* end = std::copy(spans.begin() + part.first, spans.begin() + part.last, own);
  for (RunSpan* span = own; span < end; ++span) span->offset -= part.offset;
  return {own, end};
}

// All threads at one part, product by product.
void run_together(const Engine& engine, Arena& arena, const RunShape& shape, Runs runs, std::span<const RunSpan> spans,
                  KeyValueStore& store, float* h, const Part& part) {
  const std::int64_t width = runs[0][0].q.inputs(), first = static_cast<std::int64_t>(part.first),
                     count = static_cast<std::int64_t>(part.last) - first;
  TransformerRows rows(engine, arena, shape, spans_of(arena, spans, part), h + part.offset * width, part.rows, width);
  auto* to = arena.take<KeyValues>(count);
  for (std::size_t i = 0; i < runs[0].size(); ++i) {
    const Arena::Mark mark = arena.mark();
    for (std::int64_t s = 0; s < count; ++s) to[s] = store.extend(static_cast<std::int64_t>(i), first + s);
    rows.block(runs, i, to, i + 1 == runs[0].size());
    arena.rewind(mark);
  }
}

// Every thread at parts of its own; in every block they meet where keys and values have found their places.
void run_pieces(const Engine& engine, Arena& arena, const RunShape& shape, Runs runs, KeyValueStore& store, float* h,
                const Pieces& pieces) {
  const std::int64_t width = runs[0][0].q.inputs();
  const auto count = std::ssize(pieces.parts);
  auto* own = arena.take<TransformerRows>(count);
  for (std::int64_t p = 0; p < count; ++p) {
    const Part& part = pieces.parts[static_cast<std::size_t>(p)];
    arena.part(p).reset();
    std::construct_at(own + p, engine, arena.part(p), shape, spans_of(arena, pieces.spans, part),
                      h + part.offset * width, part.rows, width);
  }
  auto* to = arena.take<KeyValues>(std::ssize(pieces.spans));
  const auto each = [&](const auto& go) {
    engine.pool->run(count, [&](std::int64_t p) { go(own[p], to + pieces.parts[static_cast<std::size_t>(p)].first); });
  };
  for (std::size_t i = 0; i < runs[0].size(); ++i) {
    const bool last = i + 1 == runs[0].size();
    for (std::size_t s = 0; s < pieces.spans.size(); ++s) {
      const std::int64_t whole = pieces.whole[s];
      if (s > 0 && pieces.whole[s - 1] == whole)
        to[s] = {to[s - 1].past + pieces.spans[s - 1].length, to[s - 1].k, to[s - 1].v};
      else
        to[s] = i == 0 ? pieces.first[whole] : store.extend(static_cast<std::int64_t>(i), whole);
    }
    each([&](TransformerRows& rows, const KeyValues* past) { rows.begin(runs, i, past, last); });
    each([&](TransformerRows& rows, const KeyValues* past) { rows.end(runs, i, past, last); });
  }
}

// Every run's spans.
std::span<const Part> parts_of_runs(Arena& arena, std::span<const RunSpan> spans, std::size_t runs) {
  auto* parts = arena.take<Part>(static_cast<std::int64_t>(runs));
  std::fill_n(parts, runs, Part());
  for (std::size_t s = 0; s < spans.size(); ++s) {
    Part& part = parts[spans[s].run];
    if (part.last == 0) part.first = s, part.offset = spans[s].offset;
    part.last = s + 1, part.rows += spans[s].length;
  }
  return {parts, runs};
}

// Every thread takes whole parts through all blocks, one after the other. runs_of(part): which go together over it.
template <class RunsOf>
void run_one_each(const Engine& engine, Arena& arena, const RunShape& shape, const RunsOf& runs_of,
                  std::span<const RunSpan> spans, KeyValueStore& store, float* h, std::span<const Part> parts) {
  auto* to = arena.take<std::span<KeyValues>>(std::ssize(parts)); // block by block, of the part's spans
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const auto count = static_cast<std::int64_t>(parts[p].last - parts[p].first), blocks = std::ssize(runs_of(p)[0]);
    to[p] = {arena.take<KeyValues>(blocks * count), static_cast<std::size_t>(blocks * count)};
    for (std::int64_t i = 0; i < blocks; ++i)
      for (std::int64_t s = 0; s < count; ++s)
        to[p][static_cast<std::size_t>(i * count + s)] = store.extend(i, static_cast<std::int64_t>(parts[p].first) + s);
  }
  for (int t = 0; t < engine.pool->threads(); ++t) arena.part(t);
  engine.pool->run(std::ssize(parts), [&](std::int64_t index) {
    const auto p = static_cast<std::size_t>(index);
    const Part& part = parts[p];
    const Runs runs = runs_of(p);
    const std::int64_t width = runs[0][0].q.inputs();
    Arena& memory = arena.part(Pool::thread());
    memory.reset();
    TransformerRows own(engine, memory, shape, spans_of(memory, spans, part), h + part.offset * width, part.rows,
                        width);
    for (std::size_t i = 0; i < runs[0].size(); ++i)
      own.block(runs, i, to[p].data() + i * (part.last - part.first), i + 1 == runs[0].size());
  });
}

// go(way), the faster of both ways or the one that is asked for; work: how much that is.
template <class Go>
void go_faster(const Engine& engine, FasterWay& ways, std::int64_t work, std::uint32_t trial, const Go& go) {
  if (engine.sharing != Sharing::measured) return go(engine.sharing == Sharing::apart ? 1 : 0);
  const FasterWay::Choice choice = ways.choose(trial);
  const auto begin = std::chrono::steady_clock::now();
  go(choice.way);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  ways.took(choice, taken.count() / static_cast<double>(work));
}

} // namespace

void run_blocks(const Engine& engine, Arena& arena, const RunShape& shape, Runs runs, std::span<const RunSpan> spans,
                KeyValueStore& store, float* h, std::int64_t rows) {
  constexpr std::int64_t least = 4; // rows of a thread; fewer stream weights from memory, and all threads take part
  if (rows == 0 || runs.empty() || runs[0].empty()) return;
  const std::int64_t threads = engine.pool->threads(), even = (rows + threads - 1) / threads;
  const bool many = even > kFewRows, may = threads > 1 && even >= least && in_order(spans, rows);
  const auto few = may && !many ? by_sequence(threads, arena, spans, rows) : std::span<const Part>();
  const auto go = [&](int way) {
    const auto all = [&](std::size_t) { return runs; };
    if (way == 0) return run_together(engine, arena, shape, runs, spans, store, h, {0, spans.size(), 0, rows});
    if (!many) return run_one_each(engine, arena, shape, all, spans, store, h, few);
    run_pieces(engine, arena, shape, runs, store, h, by_rows(threads, arena, spans, rows, store));
  };
  if (!may || (!many && few.empty())) return go(0);
  static Ways ways;
  std::int64_t work = std::ssize(runs[0]) * rows;
  for (const RunSpan& span : spans) work -= span.unread; // the last block all but leaves them out
  go_faster(engine, way_of(ways, runs[0][0], even), work, many ? FasterWay::kLongTrial : FasterWay::kTrial, go);
}

void run_apart(const Engine& engine, Arena& arena, const RunShape& shape, Runs runs, std::span<const RunSpan> spans,
               KeyValueStore& store, float* h) {
  static Ways ways;
  if (runs.empty() || runs[0].empty()) return;
  const std::span<const Part> parts = parts_of_runs(arena, spans, runs.size());
  const auto go = [&](std::size_t each) {
    const auto run_of = [&](std::size_t p) { return runs.subspan(p, 1); };
    if (each > 0) run_one_each(engine, arena, shape, run_of, spans, store, h, parts.first(each));
    for (std::size_t p = each; p < parts.size(); ++p) {
      const Arena::Mark mark = arena.mark();
      run_together(engine, arena, shape, runs.subspan(p, 1), spans, store, h, parts[p]);
      arena.rewind(mark);
    }
  };
  // As many as all threads have something to do with; what is left over goes by product.
  const auto threads = static_cast<std::size_t>(engine.pool->threads());
  const std::size_t each = parts.size() / threads * threads;
  std::int64_t longest = 0;
  for (const Part& part : parts) longest = std::max(longest, part.rows);
  if (threads == 1 || each == 0 || longest > kFewRows) return go(0);
  go_faster(engine, way_of(ways, runs[0][0], longest), std::ssize(parts) * std::ssize(runs[0]), FasterWay::kTrial,
            [&](int way) { go(way == 1 ? each : 0); });
}

} // namespace tenon::cpu

#include "kernels/cpu/transformer_run.hpp"

#include "kernels/cpu/faster_way.hpp"
#include "kernels/cpu/product_tasks.hpp"
#include "kernels/cpu/rows.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>

namespace tenon::cpu {
namespace {

constexpr std::int64_t kKept = 16; // positions of a task that keeps them; even: two of a pair are never written at once

// cos and sin of every row's position and pair, (N, D/2).
struct Rotation {
  float *cos_NP, *sin_NP;

  Rotation(Arena& arena, std::span<const RunSpan> spans, std::int64_t rows, std::int64_t depth, double theta) {
    const std::int64_t pairs = depth / 2;
    cos_NP = arena.take<float>(rows * pairs), sin_NP = arena.take<float>(rows * pairs);
    auto* frequency_P = arena.take<float>(pairs);
    for (std::int64_t p = 0; p < pairs; ++p)
      frequency_P[p] = static_cast<float>(std::pow(theta, -2.0 * static_cast<double>(p) / static_cast<double>(depth)));
    for (const RunSpan& span : spans)
      for (std::int64_t i = 0; i < span.length; ++i)
        for (std::int64_t p = 0; p < pairs; ++p) {
          const float angle = static_cast<float>(span.position + i) * frequency_P[p];
          cos_NP[(span.offset + i) * pairs + p] = std::cos(angle);
          sin_NP[(span.offset + i) * pairs + p] = std::sin(angle);
        }
  }
};

// The runs' blocks of this index as one: every span's rows have the changes of their own run.
Block joined(Arena& arena, std::span<const std::span<const Block>> runs, std::span<const RunSpan> spans,
             std::size_t index) {
  Block out = runs[0][index];
  const auto join = [&](Linear& linear, const auto& of) {
    auto* changes = arena.take<ChangeOfRows>(static_cast<std::int64_t>(spans.size()));
    std::size_t count = 0;
    for (const RunSpan& span : spans)
      if (const LowRankChange& change = of(runs[span.run][index]).change; change.rank > 0)
        changes[count++] = {span.offset, span.length, &change};
    linear.change = {};
    linear.by_rows = {changes, count};
  };
  for (Linear Block::*product : {&Block::q, &Block::k, &Block::v, &Block::o, &Block::up, &Block::down})
    join(out.*product, [&](const Block& block) -> const Linear& { return block.*product; });
  if (out.gate) join(*out.gate, [](const Block& block) -> const Linear& { return *block.gate; });
  return out;
}

// Spans [first, last) and their rows.
struct Part {
  std::size_t first = 0, last = 0;
  std::int64_t offset = 0, rows = 0;
};

std::span<const Part> one_part(Arena& arena, std::span<const RunSpan> spans, std::int64_t rows) {
  auto* part = arena.take<Part>(1);
  *part = {0, spans.size(), 0, rows};
  return {part, 1};
}

// One sequence streams weights from memory: all threads take part in all of it. Many rows compute, and are shared out
// product by product, too. A few rows for each thread may go so, or every thread takes sequences of its own through a
// whole block: nothing they work on goes from one processor's caches to another's, and nobody waits before the block
// ends, but every thread reads all weights. Those sequences, or nothing where this may not be.
std::span<const Part> parts_of(const Engine& engine, Arena& arena, std::span<const RunSpan> spans, std::int64_t rows) {
  constexpr std::int64_t least = 4; // rows of a thread
  const std::int64_t threads = engine.pool->threads(), even = (rows + threads - 1) / threads;
  if (threads == 1 || even < least || even > kFewRows) return {};
  auto* parts = arena.take<Part>(threads);
  std::size_t next = 0;
  std::int64_t end = 0;
  for (std::int64_t t = 0; t < threads; ++t) {
    Part& part = parts[t] = {next, next, end, 0};
    for (; next < spans.size() && end < rows * (t + 1) / threads; end += spans[next++].length)
      if (spans[next].offset != end) return {};
    part.last = next, part.rows = end - part.offset;
    if (part.rows > even) return {};
  }
  if (end != rows) return {};
  return {parts, static_cast<std::size_t>(threads)};
}

// Which of both ways, by sequence (1) or not (0), is faster for such weights and at most kFewRows rows of a thread.
using Ways = FasterWay[kPackedFormats][kFewRows + 1];
FasterWay& way_of(Ways& ways, const Block& block, std::int64_t rows) {
  return ways[static_cast<std::size_t>(block.up.weight.format)][rows];
}

class Run {
 public:
  // h: (rows, C), of these spans alone.
  Run(const Engine& engine, Arena& arena, const RunShape& shape, std::span<const RunSpan> spans, float* h,
      std::int64_t rows, std::int64_t width)
      : engine_(engine), arena_(arena), shape_(shape), spans_(spans), h_(h), rows_(rows), width_(width) {
    n_ = arena.take<float>(rows * width);
    q_ = arena.take<float>(rows * shape.heads.q_width());
    y_ = arena.take<float>(rows * shape.heads.q_width());
    k_ = arena.take<float>(rows * shape.heads.kv_width());
    v_ = arena.take<float>(rows * shape.heads.kv_width());
    past_ = arena.take<AttentionSpan>(static_cast<std::int64_t>(spans.size()));
    first_task_ = arena.take<std::int64_t>(static_cast<std::int64_t>(spans.size()));
    if (shape.rope_theta > 0) rotation_.emplace(arena, spans, rows, shape.heads.depth, shape.rope_theta);
  }

  // to: of each span.
  void block(std::span<const std::span<const Block>> runs, std::size_t index, const KeyValues* to) {
    const Arena::Mark mark = arena_.mark();
    const Block block = runs.size() == 1 ? runs[0][index] : joined(arena_, runs, spans_, index);
    attention(block, to);
    feed_forward(block);
    arena_.rewind(mark);
  }

 private:
  void attention(const Block& block, const KeyValues* to) {
    const Rows n = normalised(block.attention_norm, ((Forms() |= block.q) |= block.k) |= block.v);
    const Product qkv[] = {{&block.q, q_}, {&block.k, k_}, {&block.v, v_}};
    multiply(engine_, arena_, n, qkv);
    const Rows y = attended(block, to);
    const Product o[] = {{&block.o, h_, true}};
    multiply(engine_, arena_, y, o);
  }

  void feed_forward(const Block& block) {
    Forms forms = Forms() |= block.up;
    if (block.gate) forms |= *block.gate;
    const Rows n = normalised(block.ffn_norm, forms);
    const Rows inner = multiply_gated(engine_, arena_, n, block.gate ? &*block.gate : nullptr, block.up,
                                      Forms() |= block.down, block.down.changes());
    const Product down[] = {{&block.down, h_, true}};
    multiply(engine_, arena_, inner, down);
  }

  // h's rows under a norm, in these forms and in float32.
  Rows normalised(const Norm& norm, Forms forms) {
    const NewRows made(arena_, rows_, width_, forms, false);
    for_rows(engine_, rows_, [&](std::int64_t first, std::int64_t count) {
      const float* from = h_ + first * width_;
      float* to = n_ + first * width_;
      if (norm.bias)
        layer_norm_rows(from, norm.weight, norm.bias, to, count, width_, shape_.norm_eps);
      else
        rms_norm_rows(from, norm.weight, to, count, width_, shape_.norm_eps);
      for (std::int64_t r = first; r < first + count; ++r) made.put(*engine_.kernels, r, 0, n_ + r * width_, width_);
    });
    Rows out = made.done();
    out.x = n_;
    return out;
  }

  // What q, k and v come to: y, in the form that o reads. Sequences of which each has a small part of all positions go
  // one to a task; else all threads take part in each step.
  Rows attended(const Block& block, const KeyValues* to) {
    const NewRows made(arena_, rows_, shape_.heads.q_width(), Forms() |= block.o, false);
    std::int64_t all = 0, longest = 0;
    for (std::size_t s = 0; s < spans_.size(); ++s) {
      const RunSpan& span = spans_[s];
      past_[s] = {span.offset, span.length, to[s].past, to[s].k, to[s].v, shape_.keys};
      all += to[s].past + span.length, longest = std::max(longest, to[s].past + span.length);
    }
    if (rows_ <= kFewRows * engine_.pool->threads() && longest * 2 * engine_.pool->threads() <= all) {
      auto* memory = arena_.take<float>(engine_.pool->threads() * attention_memory(shape_.heads));
      engine_.pool->run(static_cast<std::int64_t>(spans_.size()), [&](std::int64_t s) {
        attend_alone(block, s, to[s], memory + Pool::thread() * attention_memory(shape_.heads), made);
      });
    } else {
      place(block, to);
      attend(engine_, arena_, shape_.heads, q_, {past_, spans_.size()}, y_);
      for_rows(engine_, rows_, [&](std::int64_t first, std::int64_t count) { round(first, count, made); });
    }
    Rows out = made.done();
    out.x = y_;
    return out;
  }

  void attend_alone(const Block& block, std::int64_t s, const KeyValues& to, float* memory, const NewRows& made) const {
    const RunSpan& span = spans_[static_cast<std::size_t>(s)];
    for (std::int64_t task = 0; task < place_tasks(span, to); ++task) place_rows(block, span, to, task);
    for (std::int64_t task = 0; task < attention_tasks(shape_.heads, past_[s]); ++task)
      attend_task(*engine_.kernels, shape_.heads, q_, past_[s], task, memory, y_);
    round(span.offset, span.length, made);
  }

  void round(std::int64_t first, std::int64_t count, const NewRows& made) const {
    const std::int64_t width = shape_.heads.q_width();
    for (std::int64_t r = first; r < first + count; ++r) made.put(*engine_.kernels, r, 0, y_ + r * width, width);
  }

  static std::int64_t place_tasks(const RunSpan& span, const KeyValues& to) {
    return (to.past + span.length + kKept - 1) / kKept - to.past / kKept;
  }

  // Queries and keys at their positions; keys and values behind those of their sequences. A task's positions begin at a
  // multiple of kKept.
  void place(const Block& block, const KeyValues* all_to) {
    std::int64_t tasks = 0;
    for (std::size_t s = 0; s < spans_.size(); ++s) {
      first_task_[s] = tasks;
      tasks += place_tasks(spans_[s], all_to[s]);
    }
    engine_.pool->run(tasks, [&](std::int64_t task) {
      const std::int64_t s = std::upper_bound(first_task_, first_task_ + spans_.size(), task) - first_task_ - 1;
      place_rows(block, spans_[s], all_to[s], task - first_task_[s]);
    });
  }

  void place_rows(const Block& block, const RunSpan& span, const KeyValues& to, std::int64_t task) const {
    const std::int64_t begin = (to.past / kKept + task) * kKept, first = std::max(to.past, begin),
                       count = std::min(to.past + span.length, begin + kKept) - first,
                       row = span.offset + first - to.past, from = row * shape_.heads.kv_width();
    turn(q_, shape_.heads.heads, block.q_norm, row, count);
    turn(k_, shape_.heads.kv_heads, block.k_norm, row, count);
    put_keys(*engine_.kernels, shape_.keys, shape_.heads, k_ + from, first, count, to.k);
    put_values(*engine_.kernels, shape_.keys, shape_.heads, v_ + from, first, count, to.v);
  }

  // Norms of heads, then their positions.
  void turn(float* x, std::int64_t heads, const float* norm, std::int64_t row, std::int64_t count) const {
    const std::int64_t depth = shape_.heads.depth, angle = row * (depth / 2);
    float* from = x + row * heads * depth;
    if (norm) rms_norm_rows(from, norm, from, count * heads, depth, shape_.norm_eps);
    if (rotation_) rotate_rows(from, rotation_->cos_NP + angle, rotation_->sin_NP + angle, count, heads, depth);
  }

  const Engine& engine_;
  Arena& arena_;
  const RunShape& shape_;
  std::span<const RunSpan> spans_;
  float* h_;
  std::int64_t rows_, width_;
  float *n_, *q_, *y_, *k_, *v_;
  AttentionSpan* past_;
  std::int64_t* first_task_; // of each span, in place
  std::optional<Rotation> rotation_;
};

// Of a part's spans, as that part's own.
std::span<const RunSpan> spans_of(Arena& arena, std::span<const RunSpan> spans, const Part& part) {
  auto* own = arena.take<RunSpan>(static_cast<std::int64_t>(part.last - part.first));
  auto* end = std::copy(spans.begin() + part.first, spans.begin() + part.last, own);
  for (RunSpan* span = own; span < end; ++span) span->offset -= part.offset;
  return {own, end};
}

void run_parts(const Engine& engine, Arena& arena, const RunShape& shape, std::span<const std::span<const Block>> runs,
               std::span<const RunSpan> spans, KeyValueStore& store, float* h, std::span<const Part> parts) {
  const std::int64_t width = runs[0][0].q.inputs();
  const auto count = static_cast<std::int64_t>(parts.size());
  auto* own = arena.take<Run>(count);
  for (std::int64_t p = 0; p < count; ++p) {
    const Part& part = parts[static_cast<std::size_t>(p)];
    Arena& memory = count == 1 ? arena : arena.part(p);
    if (count > 1) memory.reset();
    std::construct_at(own + p, engine, memory, shape, spans_of(arena, spans, part), h + part.offset * width, part.rows,
                      width);
  }
  auto* to = arena.take<KeyValues>(static_cast<std::int64_t>(spans.size()));
  for (std::size_t i = 0; i < runs[0].size(); ++i) {
    const Arena::Mark mark = arena.mark();
    for (std::size_t s = parts.front().first; s < parts.back().last; ++s)
      to[s] = store.extend(static_cast<std::int64_t>(i), static_cast<std::int64_t>(s));
    engine.pool->run(count,
                     [&](std::int64_t p) { own[p].block(runs, i, to + parts[static_cast<std::size_t>(p)].first); });
    arena.rewind(mark);
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

// Every thread takes whole runs, one after the other.
void run_one_each(const Engine& engine, Arena& arena, const RunShape& shape,
                  std::span<const std::span<const Block>> runs, std::span<const RunSpan> spans, KeyValueStore& store,
                  float* h, std::span<const Part> parts) {
  const std::int64_t width = runs[0][0].q.inputs();
  auto** to = arena.take<KeyValues*>(static_cast<std::int64_t>(parts.size())); // block by block, of the part's spans
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const auto count = static_cast<std::int64_t>(parts[p].last - parts[p].first),
               blocks = static_cast<std::int64_t>(runs[p].size());
    to[p] = arena.take<KeyValues>(blocks * count);
    for (std::int64_t i = 0; i < blocks; ++i)
      for (std::int64_t s = 0; s < count; ++s)
        to[p][i * count + s] = store.extend(i, static_cast<std::int64_t>(parts[p].first) + s);
  }
  for (int t = 0; t < engine.pool->threads(); ++t) arena.part(t);
  engine.pool->run(static_cast<std::int64_t>(parts.size()), [&](std::int64_t p) {
    const Part& part = parts[static_cast<std::size_t>(p)];
    Arena& memory = arena.part(Pool::thread());
    memory.reset();
    Run run(engine, memory, shape, spans_of(memory, spans, part), h + part.offset * width, part.rows, width);
    const auto own = runs.subspan(static_cast<std::size_t>(p), 1);
    for (std::size_t i = 0; i < own[0].size(); ++i) run.block(own, i, to[p] + i * (part.last - part.first));
  });
}

// go(way), the faster of both ways or the one that is asked for; blocks: how many that is.
template <class Go>
void go_faster(const Engine& engine, FasterWay& ways, std::size_t blocks, const Go& go) {
  if (engine.few_rows != FewRows::measured) return go(engine.few_rows == FewRows::by_sequence ? 1 : 0);
  const FasterWay::Choice choice = ways.choose();
  const auto begin = std::chrono::steady_clock::now();
  go(choice.way);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  ways.took(choice, taken.count() / static_cast<double>(blocks));
}

} // namespace

void run_blocks(const Engine& engine, Arena& arena, const RunShape& shape, std::span<const std::span<const Block>> runs,
                std::span<const RunSpan> spans, KeyValueStore& store, float* h, std::int64_t rows) {
  if (rows == 0 || runs.empty() || runs[0].empty()) return;
  const std::span<const Part> whole = one_part(arena, spans, rows), apart = parts_of(engine, arena, spans, rows);
  if (apart.empty()) return run_parts(engine, arena, shape, runs, spans, store, h, whole);
  static Ways ways;
  go_faster(engine, way_of(ways, runs[0][0], rows / engine.pool->threads()), runs[0].size(),
            [&](int way) { run_parts(engine, arena, shape, runs, spans, store, h, way == 1 ? apart : whole); });
}

void run_apart(const Engine& engine, Arena& arena, const RunShape& shape, std::span<const std::span<const Block>> runs,
               std::span<const RunSpan> spans, KeyValueStore& store, float* h) {
  static Ways ways;
  if (runs.empty() || runs[0].empty()) return;
  const std::span<const Part> parts = parts_of_runs(arena, spans, runs.size());
  const auto go = [&](std::size_t each) {
    if (each > 0) run_one_each(engine, arena, shape, runs, spans, store, h, parts.first(each));
    for (std::size_t p = each; p < parts.size(); ++p) {
      const Arena::Mark mark = arena.mark();
      run_parts(engine, arena, shape, runs.subspan(p, 1), spans, store, h, parts.subspan(p, 1));
      arena.rewind(mark);
    }
  };
  // As many as all threads have something to do with; what is left over goes by product.
  const auto threads = static_cast<std::size_t>(engine.pool->threads());
  const std::size_t each = parts.size() / threads * threads;
  std::int64_t longest = 0;
  for (const Part& part : parts) longest = std::max(longest, part.rows);
  if (threads == 1 || each == 0 || longest > kFewRows) return go(0);
  go_faster(engine, way_of(ways, runs[0][0], longest), parts.size() * runs[0].size(),
            [&](int way) { go(way == 1 ? each : 0); });
}

} // namespace tenon::cpu

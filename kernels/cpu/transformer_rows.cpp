#include "kernels/cpu/transformer_rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tenon::cpu {
namespace {

// The runs' blocks of this index as one: every span's rows have the changes of their own run.
Block joined(Arena& arena, TransformerRows::Runs runs, std::span<const RunSpan> spans, std::size_t index) {
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

std::int64_t place_tasks(const RunSpan& span, const KeyValues& to) {
  return (to.past + span.length + kKept - 1) / kKept - to.past / kKept;
}

} // namespace

Rotation::Rotation(Arena& arena, std::span<const RunSpan> spans, std::int64_t rows, std::int64_t depth, double theta) {
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

TransformerRows::TransformerRows(const Engine& engine, Arena& arena, const RunShape& shape,
                                 std::span<const RunSpan> spans, float* h, std::int64_t rows, std::int64_t width)
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

void TransformerRows::block(Runs runs, std::size_t index, const KeyValues* to, bool last) {
  if (leaves_some(last) || !small_each(to)) return begin(runs, index, to, last), end(runs, index, to, last);
  const Arena::Mark mark = arena_.mark();
  const Block block = block_of(runs, index);
  project(block);
  finish(block, attend_one_each(block, to), last ? nullptr : &runs[0][index + 1]);
  arena_.rewind(mark);
}

void TransformerRows::begin(Runs runs, std::size_t index, const KeyValues* to, bool last) {
  const Arena::Mark mark = arena_.mark();
  const Block block = block_of(runs, index);
  if (leaves_some(last)) {
    const Rows n = normalised(block.attention_norm, (Forms() |= block.k) |= block.v);
    const Product kv[] = {{&block.k, k_}, {&block.v, v_}};
    multiply(engine_, arena_, n, kv);
  } else {
    project(block);
  }
  place(block, to, !leaves_some(last));
  arena_.rewind(mark);
}

void TransformerRows::end(Runs runs, std::size_t index, const KeyValues* to, bool last) {
  const Arena::Mark mark = arena_.mark();
  if (leaves_some(last)) {
    finish_read(runs, index, to);
  } else {
    const Block block = block_of(runs, index);
    finish(block, attend_together(block, to), last ? nullptr : &runs[0][index + 1]);
  }
  arena_.rewind(mark);
}

Block TransformerRows::block_of(Runs runs, std::size_t index) {
  return runs.size() == 1 ? runs[0][index] : joined(arena_, runs, spans_, index);
}

// Of rows that nobody reads, a last block needs only keys and values, which later rows look back at.
bool TransformerRows::leaves_some(bool last) const {
  return last && std::any_of(spans_.begin(), spans_.end(), [](const RunSpan& span) { return span.unread > 0; });
}

// The rows that are read, as rows of their own.
void TransformerRows::finish_read(Runs runs, std::size_t index, const KeyValues* to) {
  auto* spans = arena_.take<RunSpan>(static_cast<std::int64_t>(spans_.size()));
  auto* past = arena_.take<KeyValues>(static_cast<std::int64_t>(spans_.size()));
  std::int64_t rows = 0;
  for (std::size_t s = 0; s < spans_.size(); rows += spans[s++].length) {
    const RunSpan& all = spans_[s];
    spans[s] = {rows, all.length - all.unread, all.position + all.unread, all.run};
    past[s] = {to[s].past + all.unread, to[s].k, to[s].v};
  }
  if (rows == 0) return;
  auto* h = arena_.take<float>(rows * width_);
  const auto copy = [&](bool back) {
    for (std::size_t s = 0; s < spans_.size(); ++s) {
      float *all = h_ + (spans_[s].offset + spans_[s].unread) * width_, *read = h + spans[s].offset * width_;
      std::memcpy(back ? all : read, back ? read : all,
                  static_cast<std::size_t>(spans[s].length * width_) * sizeof(float));
    }
  };
  copy(false);
  TransformerRows read(engine_, arena_, shape_, {spans, spans_.size()}, h, rows, width_);
  read.look_back(read.block_of(runs, index), past);
  copy(true);
}

// All of a block but keys and values, which are there.
void TransformerRows::look_back(const Block& block, const KeyValues* to) {
  const Rows n = normalised(block.attention_norm, Forms() |= block.q);
  const Product q[] = {{&block.q, q_}};
  multiply(engine_, arena_, n, q);
  for_rows(engine_, rows_,
           [&](std::int64_t first, std::int64_t count) { turn(q_, shape_.heads.heads, block.q_norm, first, count); });
  finish(block, attend_together(block, to), nullptr);
}

void TransformerRows::project(const Block& block) {
  const Rows n = normalised(block.attention_norm, ((Forms() |= block.q) |= block.k) |= block.v);
  const Product qkv[] = {{&block.q, q_}, {&block.k, k_}, {&block.v, v_}}, o[] = {{&block.o}};
  multiply(engine_, arena_, n, qkv, o);
}

// next: the block that comes after this one, if it is known.
void TransformerRows::finish(const Block& block, const Rows& y, const Block* next) {
  const Product o[] = {{&block.o, h_, true}}, up[] = {{&block.up}}, down[] = {{&block.down, h_, true}};
  multiply(engine_, arena_, y, o, up);
  Forms forms = Forms() |= block.up;
  if (block.gate) forms |= *block.gate;
  const Rows n = normalised(block.ffn_norm, forms);
  const Rows inner = multiply_gated(engine_, arena_, n, block.gate ? &*block.gate : nullptr, block.up,
                                    Forms() |= block.down, block.down.changes(), down);
  if (!next) return multiply(engine_, arena_, inner, down);
  const Product qkv[] = {{&next->q}, {&next->k}, {&next->v}};
  multiply(engine_, arena_, inner, down, qkv);
}

// h's rows under a norm, in these forms and in float32.
Rows TransformerRows::normalised(const Norm& norm, Forms forms) {
  const NewRows made(arena_, rows_, width_, forms, false);
  const RowKernels& kernels = engine_.kernels->rows;
  for_rows(engine_, rows_, [&](std::int64_t first, std::int64_t count) {
    const float* from = h_ + first * width_;
    float* to = n_ + first * width_;
    if (norm.bias)
      kernels.layer_norm(from, norm.weight, norm.bias, to, count, width_, shape_.norm_eps);
    else
      kernels.rms_norm(from, norm.weight, to, count, width_, shape_.norm_eps);
    for (std::int64_t r = first; r < first + count; ++r) made.put(*engine_.kernels, r, 0, n_ + r * width_, width_);
  });
  Rows out = made.done();
  out.x = n_;
  return out;
}

// What q, k and v come to: y, in the form that o reads. All threads take part in each sequence.
Rows TransformerRows::attend_together(const Block& block, const KeyValues* to) {
  const NewRows made(arena_, rows_, shape_.heads.q_width(), Forms() |= block.o, false);
  see(to);
  attend(engine_, arena_, shape_.heads, q_, {past_, spans_.size()}, y_);
  for_rows(engine_, rows_, [&](std::int64_t first, std::int64_t count) { round(first, count, made); });
  return attended(made);
}

// The same, and the places of keys and values, by one thread for a sequence.
Rows TransformerRows::attend_one_each(const Block& block, const KeyValues* to) {
  const NewRows made(arena_, rows_, shape_.heads.q_width(), Forms() |= block.o, false);
  const TaskMemory memory(engine_, arena_, attention_memory(shape_.heads));
  see(to);
  engine_.pool->run(static_cast<std::int64_t>(spans_.size()), [&](std::int64_t s) {
    const RunSpan& span = spans_[static_cast<std::size_t>(s)];
    for (std::int64_t task = 0; task < place_tasks(span, to[s]); ++task) place_rows(block, span, to[s], task, true);
    for (std::int64_t task = 0; task < attention_tasks(shape_.heads, past_[s]); ++task)
      attend_task(*engine_.kernels, shape_.heads, q_, past_[s], task, memory.own(), y_);
    round(span.offset, span.length, made);
  });
  return attended(made);
}

// Whether few rows are those of sequences of which each has a small part of all positions.
bool TransformerRows::small_each(const KeyValues* to) const {
  std::int64_t all = 0, longest = 0;
  for (std::size_t s = 0; s < spans_.size(); ++s) {
    const std::int64_t positions = to[s].past + spans_[s].length;
    all += positions, longest = std::max(longest, positions);
  }
  const std::int64_t threads = engine_.pool->threads();
  return rows_ <= kFewRows * threads && longest * 2 * threads <= all;
}

// What attention looks back at.
void TransformerRows::see(const KeyValues* to) {
  for (std::size_t s = 0; s < spans_.size(); ++s)
    past_[s] = {spans_[s].offset, spans_[s].length, to[s].past, to[s].k, to[s].v, shape_.keys};
}

void TransformerRows::round(std::int64_t first, std::int64_t count, const NewRows& made) const {
  const std::int64_t width = shape_.heads.q_width();
  for (std::int64_t r = first; r < first + count; ++r) made.put(*engine_.kernels, r, 0, y_ + r * width, width);
}

Rows TransformerRows::attended(const NewRows& made) const {
  Rows out = made.done();
  out.x = y_;
  return out;
}

// Keys at their positions, and queries unless they come later; keys and values behind those of their sequences. A
// task's positions begin at a multiple of kKept.
void TransformerRows::place(const Block& block, const KeyValues* to, bool queries) {
  std::int64_t tasks = 0;
  for (std::size_t s = 0; s < spans_.size(); ++s) {
    first_task_[s] = tasks;
    tasks += place_tasks(spans_[s], to[s]);
  }
  engine_.pool->run(tasks, [&](std::int64_t task) {
    const std::int64_t s = std::upper_bound(first_task_, first_task_ + spans_.size(), task) - first_task_ - 1;
    place_rows(block, spans_[static_cast<std::size_t>(s)], to[s], task - first_task_[s], queries);
  });
}

void TransformerRows::place_rows(const Block& block, const RunSpan& span, const KeyValues& to, std::int64_t task,
                                 bool queries) const {
  const std::int64_t begin = (to.past / kKept + task) * kKept, first = std::max(to.past, begin),
                     count = std::min(to.past + span.length, begin + kKept) - first,
                     row = span.offset + first - to.past, from = row * shape_.heads.kv_width();
  if (queries) turn(q_, shape_.heads.heads, block.q_norm, row, count);
  turn(k_, shape_.heads.kv_heads, block.k_norm, row, count);
  put_keys(*engine_.kernels, shape_.keys, shape_.heads, k_ + from, first, count, to.k);
  put_values(*engine_.kernels, shape_.keys, shape_.heads, v_ + from, first, count, to.v);
}

// Norms of heads, then their positions.
void TransformerRows::turn(float* x, std::int64_t heads, const float* norm, std::int64_t row,
                           std::int64_t count) const {
  const std::int64_t depth = shape_.heads.depth, angle = row * (depth / 2);
  float* from = x + row * heads * depth;
  const RowKernels& kernels = engine_.kernels->rows;
  if (norm) kernels.rms_norm(from, norm, from, count * heads, depth, shape_.norm_eps);
  if (rotation_) kernels.rotate(from, rotation_->cos_NP + angle, rotation_->sin_NP + angle, count, heads, depth);
}

} // namespace tenon::cpu

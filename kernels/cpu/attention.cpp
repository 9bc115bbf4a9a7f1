#include "kernels/cpu/attention.hpp"

#include "kernels/cpu/panel_attention.hpp"
#include "kernels/cpu/product_tasks.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>

namespace tenon::cpu {
namespace {

std::int64_t parts(std::int64_t whole, std::int64_t part) { return (whole + part - 1) / part; }

// What a tile's queries have summed over one chunk, or over all so far: (rows), (rows), (rows, depth).
struct Sums {
  float *largest, *sum, *out;
  static std::int64_t size(std::int64_t depth) { return kTileRows * (depth + 2); }
  explicit Sums(float* memory) : largest(memory), sum(memory + kTileRows), out(memory + 2 * kTileRows) {}
};

// into = into and chunk, as one softmax.
void join(const Kernels& kernels, const Sums& into, const Sums& chunk, std::int64_t rows, std::int64_t depth) {
  for (std::int64_t r = 0; r < rows; ++r) {
    if (chunk.sum[r] == 0.0f) continue; // saw nothing
    const float* from = chunk.out + r * depth;
    float* out = into.out + r * depth;
    if (chunk.largest[r] > into.largest[r]) {
      const float shrink = std::exp(into.largest[r] - chunk.largest[r]);
      for (std::int64_t d = 0; d < depth; ++d) out[d] = out[d] * shrink + from[d];
      into.sum[r] = into.sum[r] * shrink + chunk.sum[r];
      into.largest[r] = chunk.largest[r];
    } else {
      const float weight = std::exp(chunk.largest[r] - into.largest[r]);
      kernels.add_scaled(weight, from, out, depth);
      into.sum[r] += weight * chunk.sum[r];
    }
  }
}

// Queries of one span that share keys: query i is head i % sharing of the group, in row i / sharing of the span.
class Tile {
 public:
  Tile(const HeadShape& shape, const AttentionSpan& span, std::int64_t index)
      : shape_(shape), span_(span), sharing_(shape.heads / shape.kv_heads) {
    const std::int64_t tiles = count(shape, span) / shape.kv_heads;
    group_ = index / tiles, first_ = index % tiles * kTileRows;
    rows_ = std::min(kTileRows, span.length * sharing_ - first_);
  }
  static std::int64_t count(const HeadShape& shape, const AttentionSpan& span) {
    return shape.kv_heads * parts(span.length * (shape.heads / shape.kv_heads), kTileRows);
  }
  static std::int64_t memory(std::int64_t depth) { return kTileRows * depth + attention_scratch(depth); }

  std::int64_t chunks() const { return parts(position(rows_ - 1) + 1, kChunk); }
  std::int64_t rows() const { return rows_; }

  // memory (both): that many numbers, aligned to 64. Its queries, scaled, before its first chunk.
  void take(const float* q_NHD, float* memory) const {
    const std::int64_t depth = shape_.depth;
    const float scale = 1.0f / std::sqrt(static_cast<float>(depth));
    for (std::int64_t r = 0; r < rows_; ++r) {
      const float* from = q_NHD + offset(r);
      for (std::int64_t d = 0; d < depth; ++d) memory[r * depth + d] = from[d] * scale;
    }
  }
  // Where its keys of a chunk begin; null in float32.
  const std::byte* keys(std::int64_t index) const {
    if (span_.format == KeyFormat::float32) return nullptr;
    return ChunkOfPanels(span_.format, shape_, span_.k[index], span_.v[index]).keys(group_);
  }
  // next: keys that this thread reads behind this chunk; null: of none.
  void chunk(const Kernels& kernels, std::int64_t index, const std::byte* next, const Sums& sums, float* memory) const {
    const std::int64_t depth = shape_.depth, begin = index * kChunk;
    std::int64_t visible[kTileRows];
    for (std::int64_t r = 0; r < rows_; ++r) visible[r] = std::clamp<std::int64_t>(position(r) + 1 - begin, 0, kChunk);
    AttentionTile tile;
    tile.rows = rows_, tile.depth = depth, tile.keys = visible[rows_ - 1];
    tile.q = memory, tile.visible = visible;
    tile.scratch = memory + kTileRows * depth;
    tile.largest = sums.largest, tile.sum = sums.sum, tile.out = sums.out;
    if (span_.format == KeyFormat::float32) {
      tile.stride = shape_.kv_width();
      tile.k = span_.k[index] + group_ * depth, tile.v = span_.v[index] + group_ * depth;
      return kernels.attend(tile);
    }
    const ChunkOfPanels panels(span_.format, shape_, span_.k[index], span_.v[index]);
    tile.k_panels = keys(index), tile.v_panels = panels.values(), tile.v_steps = panels.steps(group_);
    tile.column = group_ * depth;
    tile.next_k_panels = next;
    attend_panels(kernels, span_.format, tile);
  }

  void write(const Sums& sums, float* y_NHD, float* log_sum_NH = nullptr) const {
    for (std::int64_t r = 0; r < rows_; ++r) {
      if (log_sum_NH) log_sum_NH[offset(r) / shape_.depth] = sums.largest[r] + std::log(sums.sum[r]);
      const float inverse = 1.0f / sums.sum[r];
      for (std::int64_t d = 0; d < shape_.depth; ++d) y_NHD[offset(r) + d] = sums.out[r * shape_.depth + d] * inverse;
    }
  }

 private:
  std::int64_t position(std::int64_t r) const { return span_.past + (first_ + r) / sharing_; }
  std::int64_t offset(std::int64_t r) const {
    const std::int64_t row = span_.offset + (first_ + r) / sharing_, head = group_ * sharing_ + (first_ + r) % sharing_;
    return row * shape_.q_width() + head * shape_.depth;
  }

  const HeadShape& shape_;
  const AttentionSpan& span_;
  std::int64_t sharing_, group_, first_, rows_;
};

// Few tiles over a long past: tasks are runs of chunks. Whoever computes a tile's last one joins them all, in order.
// Where tiles see as many chunks as each other, threads take equal runs; in a new text shorter ones.
void attend_chunks(const Engine& engine, Arena& arena, const HeadShape& shape, const float* q,
                   const AttentionSpan& span, const TaskMemory& memory, float* y) {
  const std::int64_t sums = Sums::size(shape.depth), tiles = Tile::count(shape, span),
                     chunks = parts(span.past + span.length, kChunk);
  auto* partial = arena.take<float>(tiles * chunks * sums);
  auto* left = arena.take<std::atomic<std::int64_t>>(tiles); // chunks
  for (std::int64_t t = 0; t < tiles; ++t) std::construct_at(left + t, chunks);
  const std::int64_t rows_each = span.past >= span.length ? 1 : kFewRows + 1;
  for_slices(engine, Slices(engine, tiles * chunks, rows_each), [&](const Slice& slice) {
    float* own = memory.own();
    for (std::int64_t begin = slice.begin, t = begin / chunks, next = 0; begin < slice.end; begin = next, ++t) {
      const Tile tile(shape, span, t);
      next = std::min(slice.end, (t + 1) * chunks);
      tile.take(q, own);
      const std::int64_t last = std::min(next - t * chunks, tile.chunks());
      for (std::int64_t c = begin - t * chunks; c < last; ++c) {
        const std::byte* then = c + 1 < last       ? tile.keys(c + 1)
                                : next < slice.end ? Tile(shape, span, t + 1).keys(0)
                                                   : nullptr;
        tile.chunk(*engine.kernels, c, then, Sums(partial + (t * chunks + c) * sums), own);
      }
      if (left[t].fetch_sub(next - begin, std::memory_order_acq_rel) != next - begin) continue;
      const Sums all(partial + t * chunks * sums); // every row sees something of the first chunk
      for (std::int64_t c = 1; c < tile.chunks(); ++c)
        join(*engine.kernels, all, Sums(partial + (t * chunks + c) * sums), tile.rows(), shape.depth);
      tile.write(all, y);
    }
  });
}

} // namespace

std::int64_t attention_memory(const HeadShape& shape) {
  return parts(Tile::memory(shape.depth) + 2 * Sums::size(shape.depth), 16) * 16;
}

std::int64_t attention_tasks(const HeadShape& shape, const AttentionSpan& span) { return Tile::count(shape, span); }

// A tile's chunks in turn.
void attend_task(const Kernels& kernels, const HeadShape& shape, const float* q, const AttentionSpan& span,
                 std::int64_t task, float* memory, float* y, float* log_sum) {
  const std::int64_t depth = shape.depth;
  const Sums all(memory + Tile::memory(depth)), one(all.largest + Sums::size(depth));
  const Tile tile(shape, span, task);
  tile.take(q, memory);
  for (std::int64_t c = 0; c < tile.chunks(); ++c) {
    tile.chunk(kernels, c, c + 1 < tile.chunks() ? tile.keys(c + 1) : nullptr, c == 0 ? all : one, memory);
    if (c > 0) join(kernels, all, one, tile.rows(), depth);
  }
  tile.write(all, y, log_sum);
}

std::int64_t attention_gradient_memory(const HeadShape& shape, std::int64_t length) {
  return attention_gradient_scratch(shape.depth) + length;
}

void attention_gradient_task(const Kernels& kernels, const AttentionGradient& of, std::int64_t head, float* memory) {
  const std::int64_t depth = of.shape.depth, q_width = of.shape.q_width(), kv_width = of.shape.kv_width(),
                     group = head / (of.shape.heads / of.shape.kv_heads), column = head * depth;
  float* dot = memory + attention_gradient_scratch(depth);
  for (std::int64_t t = 0; t < of.length; ++t) {
    const std::int64_t at = t * q_width + column;
    dot[t] = kernels.dot(of.d_y + at, of.y + at, depth);
    for (float* d : {of.d_q, of.d_k, of.d_v}) std::fill(d + at, d + at + depth, 0.0f);
  }
  for (std::int64_t begin = 0; begin < of.length; begin += kChunk) {
    const std::int64_t at = begin * q_width + column, kv_at = begin * kv_width + group * depth;
    AttentionGradientTile tile;
    tile.rows = of.length - begin, tile.depth = depth, tile.keys = std::min(kChunk, of.length - begin);
    tile.heads = of.shape.heads, tile.q_stride = q_width, tile.kv_stride = kv_width;
    tile.scale = 1.0f / std::sqrt(static_cast<float>(depth));
    tile.q = of.q + at, tile.d_y = of.d_y + at, tile.k = of.k + kv_at, tile.v = of.v + kv_at;
    tile.log_sum = of.log_sum + begin * of.shape.heads + head, tile.dot = dot + begin;
    tile.d_q = of.d_q + at, tile.d_k = of.d_k + at, tile.d_v = of.d_v + at;
    tile.scratch = memory;
    kernels.attend_gradient(tile);
  }
}

void attend(const Engine& engine, Arena& arena, const HeadShape& shape, const float* q,
            std::span<const AttentionSpan> spans, float* y) {
  std::int64_t all = 0, tiles = 0;
  for (const AttentionSpan& span : spans) all += Tile::count(shape, span);
  const bool few = all < 4 * engine.pool->threads();
  auto* first = arena.take<std::int64_t>(static_cast<std::int64_t>(spans.size())); // task of each span
  const TaskMemory memory(engine, arena, attention_memory(shape));
  for (std::size_t s = 0; s < spans.size(); ++s) {
    first[s] = tiles;
    if (few && spans[s].length > 0 && spans[s].past + spans[s].length > kChunk)
      attend_chunks(engine, arena, shape, q, spans[s], memory, y);
    else
      tiles += Tile::count(shape, spans[s]);
  }
  engine.pool->run(tiles, [&](std::int64_t task) {
    const std::int64_t s = std::upper_bound(first, first + spans.size(), task) - first - 1; // the last that begins here
    attend_task(*engine.kernels, shape, q, spans[static_cast<std::size_t>(s)], task - first[s], memory.own(), y);
  });
}

} // namespace tenon::cpu

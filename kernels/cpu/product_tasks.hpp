// What products are made of, for those who bring tasks of their own: rows being written, one panel's results for some
// rows, and how threads share rows and panels. Inside kernels/cpu only. Thread: pure functions; any.
#pragma once

#include "kernels/cpu/product.hpp"

#include <algorithm>

namespace tenon::cpu {

constexpr std::int64_t kRowChunk = 96; // of a task: rows and results stay in the second cache
constexpr std::int64_t chunks_of(std::int64_t rows) { return (rows + kRowChunk - 1) / kRowChunk; }

// Rows being written, in the forms asked for.
struct NewRows {
  std::int64_t rows = 0, width = 0;
  std::uint16_t* bf16 = nullptr;
  std::int8_t* q = nullptr;
  float* scale = nullptr;
  std::int32_t* sum = nullptr;
  float* x = nullptr;

  NewRows(Arena& arena, std::int64_t rows, std::int64_t width, Forms forms, bool keeps);
  // Numbers [column, column + count) of a row.
  void put(const Kernels& kernels, std::int64_t row, std::int64_t column, const float* from, std::int64_t count) const;
  Rows done() const;
};

// scale a x of rows [first, first + count), (count, R), for a low-rank change.
struct NarrowRows : ChangeOfRows {
  const float* t_nR = nullptr;
};
std::span<const NarrowRows> narrow(const Engine& engine, Arena& arena, const Rows& rows, const Linear& linear);

// A panel of a product for rows [first, first + count); of a gated one some panels side by side. Requires: count <=
// kRowChunk; panels count <= kGatedRows.
constexpr std::int64_t kGatedRows = 256;
struct PanelTask {
  std::int64_t panel = 0, first = 0, count = 0, panels = 1;
  const std::byte* then = nullptr; // what this thread reads behind its last panel; null: nothing known
};
void multiply_panel(const Kernels& kernels, const Product& product, std::span<const NarrowRows> narrow,
                    const Rows& rows, const PanelTask& task);
// First all panels of up, then those of gate: two straight runs.
void multiply_panels_gated(const Kernels& kernels, const Linear* gate, std::span<const NarrowRows> gate_narrow,
                           const Linear& up, std::span<const NarrowRows> up_narrow, const Rows& rows,
                           const PanelTask& task, const NewRows& inner);

// each(first, count) for parts of rows that are each worked on alone: few rows, too, by all threads.
template <class Each>
void for_rows(const Engine& engine, std::int64_t rows, const Each& each) {
  constexpr std::int64_t least = 4, most = 16; // of a task
  const std::int64_t threads = engine.pool->threads(), part = std::clamp((rows + threads - 1) / threads, least, most);
  engine.pool->run((rows + part - 1) / part,
                   [&](std::int64_t task) { each(task * part, std::min(part, rows - task * part)); });
}

constexpr std::int64_t kFewRows = 16;

// Memory that tasks compute in: a piece for every thread of a region, or, inside another region's task, one.
struct TaskMemory {
  std::int64_t each; // numbers; a multiple of 16
  bool alone = Pool::inside();
  float* all;

  TaskMemory(const Engine& engine, Arena& arena, std::int64_t each)
      : each(each), all(arena.take<float>((alone ? 1 : engine.pool->threads()) * each)) {}
  float* own() const { return all + (alone ? 0 : Pool::thread()) * each; }
};

// Tasks cut into slices, counted in pieces of a task: straight runs of panels, as prefetchers like them, and as what a
// panel asks for ahead is read by the same thread. Where weights meet few rows each, they stream from memory, and every
// thread has as many; of two the first is the longer, since whoever calls begins a moment before the others. More rows
// compute, and shorter slices go to whoever is free.
struct Slices {
  std::int64_t all, count; // all: pieces

  Slices(const Engine& engine, std::int64_t tasks, std::int64_t rows_each, std::int64_t pieces = 1)
      : all(tasks * pieces) {
    constexpr std::int64_t longest = 16, shared = 8; // panels of a slice; slices of a thread
    const std::int64_t threads = engine.pool->threads(), most = longest * threads;
    count = std::min(tasks, rows_each > kFewRows ? shared * threads : (tasks + most - 1) / most * threads);
  }
  std::int64_t begin(std::int64_t slice) const { return (all * slice + count - 1) / count; }
};

// One of them, and which thread's it is: of the region's, or 0 in a task of another region, which has all.
struct Slice {
  std::int64_t begin, end;
  int thread;
  bool last; // of that thread, as far as is known
};

// each(slice) for all.
template <class Each>
void for_slices(const Engine& engine, const Slices& slices, const Each& each) {
  const bool alone = Pool::inside();
  const std::int64_t threads = alone ? 1 : engine.pool->threads();
  engine.pool->run(slices.count, [&](std::int64_t i) {
    each(Slice{slices.begin(i), slices.begin(i + 1), alone ? 0 : Pool::thread(), i + threads >= slices.count});
  });
}

// With what a thread begins products over so many rows; null: nothing known.
const std::byte* first_read(const Engine& engine, std::span<const Product> products, std::int64_t rows, int thread);

} // namespace tenon::cpu

// What products are made of, for those who bring tasks of their own: rows being written, one panel's results for some
// rows, and the order in which threads walk panels. Inside kernels/cpu only. Thread: pure functions; any.
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
};
void multiply_panel(const Kernels& kernels, const Product& product, std::span<const NarrowRows> narrow,
                    const Rows& rows, const PanelTask& task);
// First all panels of up, then those of gate: two straight runs.
void multiply_panels_gated(const Kernels& kernels, const Linear* gate, std::span<const NarrowRows> gate_narrow,
                           const Linear& up, std::span<const NarrowRows> up_narrow, const Rows& rows,
                           const PanelTask& task, const NewRows& inner);

// each(begin, end) for runs of tasks. Where weights meet few rows each, they stream from memory: every thread then
// walks straight runs of panels, as prefetchers like them. More rows compute, and tasks go one by one to whoever is
// free.
template <class Each>
void for_runs(const Engine& engine, std::int64_t tasks, std::int64_t rows_each, const Each& each) {
  constexpr std::int64_t few = 16, longest = 16; // rows; panels of a run
  const std::int64_t threads = engine.pool->threads();
  const std::int64_t runs =
      rows_each > few ? tasks : std::min(tasks, std::max(threads, (tasks + longest - 1) / longest));
  engine.pool->run(runs, [&](std::int64_t run) { each(tasks * run / runs, tasks * (run + 1) / runs); });
}
template <class Each>
void for_tasks(const Engine& engine, std::int64_t tasks, std::int64_t rows_each, const Each& each) {
  for_runs(engine, tasks, rows_each, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) each(task);
  });
}

} // namespace tenon::cpu

#include "kernels/cpu/product_tasks.hpp"

#include <cstring>

namespace tenon::cpu {
namespace {

// A panel's results before they go where they belong.
struct alignas(64) Scratch {
  float first[kRowChunk * kPanel], second[kGatedRows * kPanel], parts[2 * kRowChunk * kPanel];
};
thread_local Scratch scratch;

PanelTask task_of(std::int64_t index, std::int64_t rows) {
  const std::int64_t parts = chunks_of(rows), first = index % parts * kRowChunk;
  return {index / parts, first, std::min(kRowChunk, rows - first)};
}

// The first half of a task's rows, or the second.
PanelTask half_of(const PanelTask& task, std::int64_t which) {
  const std::int64_t half = task.count / 2;
  return {task.panel, task.first + which * half, which == 0 ? half : task.count - half};
}

// One panel's results for some rows, with bias and low-rank change, into out (count, 64).
void panel_product(const Kernels& kernels, const Linear& linear, std::span<const NarrowRows> narrow, const Rows& rows,
                   const PanelTask& task, float* out) {
  const auto product = kernels.product(linear.weight.format);
  const Panel panel(linear.weight.panel(task.panel), task.then);
  if (rows.parts == 1) {
    product(panel, rows, task.first, task.count, out, kPanel);
  } else if (linear.weight.format == PackedFormat::int8g32 && kernels.fine_product) {
    kernels.fine_product(panel, rows, task.first, task.count, out, kPanel);
  } else {
    product(panel, rows, 2 * task.first, 2 * task.count, scratch.parts, kPanel);
    for (std::int64_t r = 0; r < task.count; ++r)
      for (std::int64_t lane = 0; lane < kPanel; ++lane)
        out[r * kPanel + lane] = scratch.parts[2 * r * kPanel + lane] + scratch.parts[(2 * r + 1) * kPanel + lane];
  }
  const std::int64_t column = task.panel * kPanel, lanes = std::min(kPanel, linear.outputs() - column);
  for (std::int64_t r = 0; linear.bias_F && r < task.count; ++r)
    kernels.add_scaled(1.0f, linear.bias_F + column, out + r * kPanel, lanes);
  for (const NarrowRows& part : narrow) {
    const std::int64_t begin = std::max(part.first, task.first), rank = part.change->rank,
                       end = std::min(part.first + part.count, task.first + task.count);
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t k = 0; k < rank; ++k)
        kernels.add_scaled(part.t_nR[(row - part.first) * rank + k], part.change->b_RF + k * linear.outputs() + column,
                           out + (row - task.first) * kPanel, lanes);
  }
}

} // namespace

NewRows::NewRows(Arena& arena, std::int64_t rows, std::int64_t width, Forms forms, bool keeps)
    : rows(rows), width(width) {
  if (forms.bf16) bf16 = arena.take<std::uint16_t>(rows * (width + width % 2));
  if (forms.int8) {
    q = arena.take<std::int8_t>(rows * width);
    scale = arena.take<float>(rows * (width / kGroup));
    sum = arena.take<std::int32_t>(rows * (width / kGroup));
  }
  if (keeps) x = arena.take<float>(rows * width);
}

void NewRows::put(const Kernels& kernels, std::int64_t row, std::int64_t column, const float* from,
                  std::int64_t count) const {
  if (bf16) {
    std::uint16_t* to = bf16 + row * (width + width % 2);
    kernels.round(from, count, to + column);
    if (column + count == width && width % 2) to[width] = 0;
  }
  if (q) {
    const std::int64_t group = row * (width / kGroup) + column / kGroup;
    kernels.quantise(from, count, q + row * width + column, scale + group, sum + group);
  }
  if (x) std::memcpy(x + row * width + column, from, static_cast<std::size_t>(count) * sizeof(float));
}

Rows NewRows::done() const {
  Rows out;
  out.rows = rows, out.width = width;
  out.bf16 = bf16, out.q = q, out.scale = scale, out.sum = sum;
  out.x = x;
  return out;
}

std::span<const NarrowRows> narrow(const Engine& engine, Arena& arena, const Rows& rows, const Linear& linear) {
  if (!linear.changes()) return {};
  const ChangeOfRows all[] = {{0, rows.rows, &linear.change}};
  const std::span<const ChangeOfRows> changes = linear.by_rows.empty() ? all : linear.by_rows;
  auto* out = arena.take<NarrowRows>(static_cast<std::int64_t>(changes.size()));
  for (std::size_t i = 0; i < changes.size(); ++i) {
    const auto& [first, count, change] = changes[i];
    auto* t_nR = arena.take<float>(count * change->rank);
    for_rows(engine, count, [&, first = first, change = change](std::int64_t begin, std::int64_t part) {
      for (std::int64_t n = begin; n < begin + part; ++n)
        for (std::int64_t r = 0; r < change->rank; ++r)
          t_nR[n * change->rank + r] =
              change->scale *
              engine.kernels->dot(change->a_RC + r * rows.width, rows.x + (first + n) * rows.width, rows.width);
    });
    out[i] = {changes[i], t_nR};
  }
  return {out, changes.size()};
}

void multiply_panel(const Kernels& kernels, const Product& product, std::span<const NarrowRows> narrow,
                    const Rows& rows, const PanelTask& task) {
  const Linear& linear = *product.linear;
  const std::int64_t column = task.panel * kPanel, lanes = std::min(kPanel, linear.outputs() - column);
  panel_product(kernels, linear, narrow, rows, task, scratch.first);
  for (std::int64_t r = 0; r < task.count; ++r) {
    const float* from = scratch.first + r * kPanel;
    float* to = product.y + (task.first + r) * linear.outputs() + column;
    if (product.adds)
      kernels.add_scaled(1.0f, from, to, lanes);
    else
      std::memcpy(to, from, static_cast<std::size_t>(lanes) * sizeof(float));
  }
}

void multiply_panels_gated(const Kernels& kernels, const Linear* gate, std::span<const NarrowRows> gate_narrow,
                           const Linear& up, std::span<const NarrowRows> up_narrow, const Rows& rows,
                           const PanelTask& task, const NewRows& inner) {
  const auto each = [&](const std::byte* then, const auto& panel_of) {
    PanelTask one{task.panel, task.first, task.count};
    for (float* b = scratch.second; one.panel < task.panel + task.panels; ++one.panel, b += task.count * kPanel) {
      if (one.panel + 1 == task.panel + task.panels) one.then = then;
      panel_of(one, b);
    }
  };
  each(task.then && gate ? gate->weight.panel(task.panel) : task.then,
       [&](const PanelTask& one, float* b) { panel_product(kernels, up, up_narrow, rows, one, b); });
  each(task.then, [&](const PanelTask& one, float* b) {
    float* a = scratch.first;
    if (gate) {
      panel_product(kernels, *gate, gate_narrow, rows, one, a);
      kernels.silu_multiply(a, b, task.count * kPanel);
    } else {
      kernels.gelu(b, task.count * kPanel);
    }
    const std::int64_t column = one.panel * kPanel, lanes = std::min(kPanel, up.outputs() - column);
    for (std::int64_t r = 0; r < task.count; ++r)
      inner.put(kernels, task.first + r, column, (gate ? a : b) + r * kPanel, lanes);
  });
}

Rows prepare(const Engine& engine, Arena& arena, const float* x, std::int64_t rows, std::int64_t width, Forms forms) {
  const NewRows made(arena, rows, width, forms, false);
  for_rows(engine, rows, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t r = first; r < first + count; ++r) made.put(*engine.kernels, r, 0, x + r * width, width);
  });
  Rows out = made.done();
  out.x = x;
  return out;
}

namespace {

// What rounding left over of one group of a row in two parts. Where a number is not finite the step is NaN, and seen.
void put_remainder(const NewRows& made, std::int64_t row, std::int64_t column, const float* x) {
  const std::int64_t at = 2 * row * made.width + column, group = at / kGroup, next = group + made.width / kGroup;
  const float scale = made.scale[group], inverse = scale > kSmallest ? kFine / scale : 0;
  const std::int8_t* q = made.q + at;
  std::int8_t* rest = made.q + at + made.width;
  made.scale[next] = scale / kFine, made.sum[next] = 0;
  constexpr float whole = 3 << 22; // numbers far below this it rounds, ties to even, in instructions that any tier has
  for (std::int64_t i = 0; i < kGroup; ++i) {
    const float left = inverse > 0 ? (x[i] - static_cast<float>(q[i]) * scale) * inverse : 0;
    rest[i] = static_cast<std::int8_t>(left + whole - whole);
    made.sum[next] += rest[i];
  }
}

} // namespace

Rows prepare_finely(const Engine& engine, Arena& arena, const float* x, std::int64_t rows, std::int64_t width) {
  Forms int8;
  int8.int8 = true;
  const NewRows made(arena, 2 * rows, width, int8, false);
  for_rows(engine, rows, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t r = first; r < first + count; ++r) {
      made.put(*engine.kernels, 2 * r, 0, x + r * width, width);
      for (std::int64_t c = 0; c < width; c += kGroup) put_remainder(made, r, c, x + r * width + c);
    }
  });
  Rows out = made.done();
  out.rows = rows, out.parts = 2;
  out.x = x;
  return out;
}

namespace {

// Few rows part where a run ends in the middle of a panel: all threads have as much to do.
std::int64_t pieces_of(std::int64_t rows) { return rows > 1 && rows <= kFewRows ? 2 : 1; }

} // namespace

const std::byte* first_read(const Engine& engine, std::span<const Product> products, std::int64_t rows, int thread) {
  if (rows > kFewRows) return nullptr;
  std::int64_t panels = 0;
  for (const Product& product : products) panels += product.linear->weight.panels();
  const Slices slices(engine, panels, rows, pieces_of(rows));
  if (thread >= slices.count) return nullptr;
  std::int64_t panel = slices.begin(thread) / pieces_of(rows);
  for (const Product& product : products) {
    const PackedMatrix& weight = product.linear->weight;
    if (panel < weight.panels()) return weight.panel(panel);
    panel -= weight.panels();
  }
  return nullptr;
}

void multiply(const Engine& engine, Arena& arena, const Rows& rows, std::span<const Product> products,
              std::span<const Product> next) {
  if (rows.rows == 0) return;
  const auto count = static_cast<std::int64_t>(products.size());
  auto* narrow_of = arena.take<std::span<const NarrowRows>>(count);
  auto* end = arena.take<std::int64_t>(count); // of each product's tasks
  std::int64_t tasks = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    narrow_of[i] = narrow(engine, arena, rows, *products[i].linear);
    end[i] = tasks += products[i].linear->weight.panels() * chunks_of(rows.rows);
  }
  const std::int64_t pieces = pieces_of(rows.rows);
  for_slices(engine, Slices(engine, tasks, rows.rows, pieces), [&](const Slice& slice) {
    for (std::int64_t i = 0, begin = slice.begin, last = 0; begin < slice.end; begin = last) {
      while (begin >= end[i] * pieces) ++i;
      PanelTask task = task_of(begin / pieces - (i > 0 ? end[i - 1] : 0), rows.rows);
      last = std::min(slice.end, (begin / pieces + 1) * pieces);
      if (last - begin < pieces) task = half_of(task, begin % pieces);
      if (last == slice.end && slice.last) task.then = first_read(engine, next, rows.rows, slice.thread);
      multiply_panel(*engine.kernels, products[i], narrow_of[i], rows, task);
    }
  });
}

Rows multiply_gated(const Engine& engine, Arena& arena, const Rows& rows, const Linear* gate, const Linear& up,
                    Forms forms, bool keeps, std::span<const Product> next) {
  const NewRows inner(arena, rows.rows, up.outputs(), forms, keeps);
  const auto gate_narrow = gate ? narrow(engine, arena, rows, *gate) : std::span<const NarrowRows>(),
             up_narrow = narrow(engine, arena, rows, up);
  for_slices(engine, Slices(engine, up.weight.panels() * chunks_of(rows.rows), rows.rows), [&](const Slice& slice) {
    for (std::int64_t begin = slice.begin, last = 0; begin < slice.end; begin = last) {
      PanelTask task = task_of(begin, rows.rows);
      last = task.count == rows.rows ? std::min(slice.end, begin + std::max<std::int64_t>(kGatedRows / task.count, 1))
                                     : begin + 1;
      task.panels = last - begin;
      if (last == slice.end && slice.last) task.then = first_read(engine, next, rows.rows, slice.thread);
      multiply_panels_gated(*engine.kernels, gate, gate_narrow, up, up_narrow, rows, task, inner);
    }
  });
  return inner.done();
}

} // namespace tenon::cpu

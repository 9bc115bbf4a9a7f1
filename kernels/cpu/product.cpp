#include "kernels/cpu/product.hpp"

#include <algorithm>
#include <cstring>

namespace tenon::cpu {
namespace {

constexpr std::int64_t kRowChunk = 96; // of a task: rows and results stay in the second cache

std::int64_t chunks(std::int64_t rows) { return (rows + kRowChunk - 1) / kRowChunk; }

// A panel's results before they go where they belong.
struct alignas(64) Scratch {
  float first[kRowChunk * kPanel], second[kRowChunk * kPanel];
};
thread_local Scratch scratch;

// Rows being written, in the forms asked for.
struct NewRows {
  std::int64_t rows = 0, width = 0;
  std::uint16_t* bf16 = nullptr;
  std::int8_t* q = nullptr;
  float* scale = nullptr;
  std::int32_t* sum = nullptr;
  float* x = nullptr;

  NewRows(Arena& arena, std::int64_t rows, std::int64_t width, Forms forms, bool keeps) : rows(rows), width(width) {
    if (forms.bf16) bf16 = arena.take<std::uint16_t>(rows * (width + width % 2));
    if (forms.int8) {
      q = arena.take<std::int8_t>(rows * width);
      scale = arena.take<float>(rows * (width / kGroup));
      sum = arena.take<std::int32_t>(rows * (width / kGroup));
    }
    if (keeps) x = arena.take<float>(rows * width);
  }

  // Numbers [column, column + count) of a row.
  void put(const Kernels& kernels, std::int64_t row, std::int64_t column, const float* from, std::int64_t count) const {
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

  Rows done() const {
    Rows out;
    out.rows = rows, out.width = width;
    out.bf16 = bf16, out.q = q, out.scale = scale, out.sum = sum;
    out.x = x;
    return out;
  }
};

// a x of every row, (N,R); null without a low-rank change.
const float* narrow(const Engine& engine, Arena& arena, const Rows& rows, const Linear& linear) {
  const LowRankChange& change = linear.change;
  if (change.rank == 0) return nullptr;
  auto* t_NR = arena.take<float>(rows.rows * change.rank);
  constexpr std::int64_t block = 16;
  engine.pool->run((rows.rows + block - 1) / block, [&](std::int64_t task) {
    for (std::int64_t n = task * block; n < std::min(rows.rows, (task + 1) * block); ++n)
      for (std::int64_t r = 0; r < change.rank; ++r)
        t_NR[n * change.rank + r] =
            change.scale * engine.kernels->dot(change.a_RC + r * rows.width, rows.x + n * rows.width, rows.width);
  });
  return t_NR;
}

// One panel's results for some rows, with bias and low-rank change, into out (count, 64).
void panel_product(const Kernels& kernels, const Linear& linear, std::int64_t panel, const Rows& rows,
                   std::int64_t first, std::int64_t count, const float* t_NR, float* out) {
  kernels.product(linear.weight.format)(linear.weight.panel(panel), rows, first, count, out, kPanel);
  const std::int64_t column = panel * kPanel, lanes = std::min(kPanel, linear.outputs() - column);
  for (std::int64_t r = 0; linear.bias_F && r < count; ++r)
    kernels.add_scaled(1.0f, linear.bias_F + column, out + r * kPanel, lanes);
  for (std::int64_t r = 0; t_NR && r < count; ++r)
    for (std::int64_t k = 0; k < linear.change.rank; ++k)
      kernels.add_scaled(t_NR[(first + r) * linear.change.rank + k], linear.change.b_RF + k * linear.outputs() + column,
                         out + r * kPanel, lanes);
}

void run_task(const Kernels& kernels, const Product& product, const float* t_NR, const Rows& rows, std::int64_t task) {
  const Linear& linear = *product.linear;
  const std::int64_t parts = chunks(rows.rows), panel = task / parts, first = task % parts * kRowChunk,
                     count = std::min(kRowChunk, rows.rows - first), column = panel * kPanel,
                     lanes = std::min(kPanel, linear.outputs() - column);
  panel_product(kernels, linear, panel, rows, first, count, t_NR, scratch.first);
  for (std::int64_t r = 0; r < count; ++r) {
    const float* from = scratch.first + r * kPanel;
    float* to = product.y + (first + r) * linear.outputs() + column;
    if (product.adds)
      kernels.add_scaled(1.0f, from, to, lanes);
    else
      std::memcpy(to, from, static_cast<std::size_t>(lanes) * sizeof(float));
  }
}

} // namespace

Rows prepare(const Engine& engine, Arena& arena, const float* x, std::int64_t rows, std::int64_t width, Forms forms) {
  const NewRows made(arena, rows, width, forms, false);
  constexpr std::int64_t block = 16;
  engine.pool->run((rows + block - 1) / block, [&](std::int64_t task) {
    for (std::int64_t r = task * block; r < std::min(rows, (task + 1) * block); ++r)
      made.put(*engine.kernels, r, 0, x + r * width, width);
  });
  Rows out = made.done();
  out.x = x;
  return out;
}

void multiply(const Engine& engine, Arena& arena, const Rows& rows, std::span<const Product> products) {
  if (rows.rows == 0) return;
  const auto count = static_cast<std::int64_t>(products.size());
  auto* narrow_of = arena.take<const float*>(count);
  auto* end = arena.take<std::int64_t>(count); // of each product's tasks
  std::int64_t tasks = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    narrow_of[i] = narrow(engine, arena, rows, *products[i].linear);
    end[i] = tasks += products[i].linear->weight.panels() * chunks(rows.rows);
  }
  engine.pool->run(tasks, [&](std::int64_t task) {
    std::int64_t i = 0;
    while (task >= end[i]) ++i;
    run_task(*engine.kernels, products[i], narrow_of[i], rows, task - (i > 0 ? end[i - 1] : 0));
  });
}

Rows multiply_gated(const Engine& engine, Arena& arena, const Rows& rows, const Linear* gate, const Linear& up,
                    Forms forms, bool keeps) {
  const NewRows inner(arena, rows.rows, up.outputs(), forms, keeps);
  const float *gate_NR = gate ? narrow(engine, arena, rows, *gate) : nullptr, *up_NR = narrow(engine, arena, rows, up);
  const std::int64_t parts = chunks(rows.rows);
  const Kernels& kernels = *engine.kernels;
  engine.pool->run(up.weight.panels() * parts, [&](std::int64_t task) {
    const std::int64_t panel = task / parts, first = task % parts * kRowChunk,
                       count = std::min(kRowChunk, rows.rows - first), column = panel * kPanel,
                       lanes = std::min(kPanel, up.outputs() - column);
    float *a = scratch.first, *b = scratch.second;
    panel_product(kernels, up, panel, rows, first, count, up_NR, b);
    if (gate) {
      panel_product(kernels, *gate, panel, rows, first, count, gate_NR, a);
      kernels.silu_multiply(a, b, count * kPanel);
    } else {
      kernels.gelu(b, count * kPanel);
    }
    for (std::int64_t r = 0; r < count; ++r) inner.put(kernels, first + r, column, (gate ? a : b) + r * kPanel, lanes);
  });
  return inner.done();
}

} // namespace tenon::cpu

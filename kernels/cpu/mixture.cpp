#include "kernels/cpu/mixture.hpp"

#include "kernels/cpu/product_tasks.hpp"
#include "kernels/cpu/routing.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace tenon::cpu {
namespace {

// Choices sorted by expert: place p holds row row_P[p], choice i stands at place_S[i] (-1: none); an expert that
// somebody chose has places [first, first + count).
struct Group {
  std::int64_t expert = 0, first = 0, count = 0, end = 0; // end: of the group's chunks of rows, all groups' counted
};
struct Sorted {
  std::int64_t places = 0, groups = 0, chunks = 0;
  std::int64_t *row_P = nullptr, *place_S = nullptr;
  Group* group_A = nullptr;

  Sorted(Arena& arena, std::int64_t experts, const Choices& choices) {
    const std::int64_t all = choices.rows * choices.each;
    auto* next_E = arena.take<std::int64_t>(experts); // first each expert's count, then its next free place
    group_A = arena.take<Group>(std::min(experts, all));
    row_P = arena.take<std::int64_t>(all), place_S = arena.take<std::int64_t>(all);
    std::fill(next_E, next_E + experts, 0);
    for (std::int64_t i = 0; i < all; ++i)
      if (choices.experts[i] >= 0) ++next_E[choices.experts[i]];
    for (std::int64_t e = 0; e < experts; ++e) {
      const std::int64_t count = std::exchange(next_E[e], places);
      if (count == 0) continue;
      group_A[groups++] = {e, places, count, chunks += chunks_of(count)};
      places += count;
    }
    for (std::int64_t i = 0; i < all; ++i) {
      place_S[i] = choices.experts[i] < 0 ? -1 : next_E[choices.experts[i]]++;
      if (place_S[i] >= 0) row_P[place_S[i]] = i / choices.each;
    }
  }
};

// What rows must be in for all of them: formats may differ.
Forms outer_forms(std::span<const FeedForward> experts) {
  Forms forms;
  for (const FeedForward& expert : experts) {
    forms |= expert.up;
    if (expert.gate) forms |= *expert.gate;
  }
  return forms;
}
Forms inner_forms(std::span<const FeedForward> experts) {
  Forms forms;
  for (const FeedForward& expert : experts) forms |= expert.down;
  return forms;
}

class Layer {
 public:
  Layer(const Engine& engine, Arena& arena, std::span<const FeedForward> experts, const Choices& choices)
      : engine_(engine),
        arena_(arena),
        experts_(experts),
        choices_(choices),
        sorted_(arena, static_cast<std::int64_t>(experts.size()), choices) {}

  void run(const float* x, float* y) {
    const FeedForward& first = experts_[0];
    const Rows in = gathered(x, first.up.inputs(), outer_forms(experts_));
    const NewRows inner(arena_, sorted_.places, first.up.outputs(), inner_forms(experts_), false);
    for_panels(first.up.weight.panels(), [&](const FeedForward& expert, const PanelTask& task) {
      multiply_panels_gated(*engine_.kernels, expert.gate ? &*expert.gate : nullptr, {}, expert.up, {}, in, task,
                            inner);
    });
    const Rows rows = inner.done();
    auto* out_PC = arena_.take<float>(sorted_.places * first.down.outputs());
    for_panels(first.down.weight.panels(), [&](const FeedForward& expert, PanelTask task) {
      for (; task.panels > 0; ++task.panel, --task.panels)
        multiply_panel(*engine_.kernels, {&expert.down, out_PC}, {}, rows, task);
    });
    scatter(out_PC, first.down.outputs(), y);
  }

 private:
  Rows gathered(const float* x, std::int64_t width, Forms forms) const {
    const NewRows in(arena_, sorted_.places, width, forms, false);
    for_rows(engine_, sorted_.places, [&](std::int64_t first, std::int64_t count) {
      for (std::int64_t p = first; p < first + count; ++p)
        in.put(*engine_.kernels, p, 0, x + sorted_.row_P[p] * width, width);
    });
    return in.done();
  }

  // each(expert, task) for all panels of every group's chunks of rows, some side by side.
  template <class Each>
  void for_panels(std::int64_t panels, const Each& each) const {
    if (sorted_.places == 0) return;
    const auto split = [&](const Slice& slice) {
      for (std::int64_t begin = slice.begin, next = 0; begin < slice.end; begin = next) {
        const Group& group = *std::partition_point(sorted_.group_A, sorted_.group_A + sorted_.groups,
                                                   [&](const Group& g) { return g.end * panels <= begin; });
        const std::int64_t chunks = chunks_of(group.count), within = begin - (group.end - chunks) * panels,
                           first = within % chunks * kRowChunk, count = std::min(kRowChunk, group.count - first);
        next = chunks > 1 ? begin + 1 : std::min({slice.end, group.end * panels, begin + kGatedRows / count});
        each(experts_[static_cast<std::size_t>(group.expert)],
             PanelTask{within / chunks, group.first + first, count, next - begin});
      }
    };
    for_slices(engine_, Slices(engine_, sorted_.chunks * panels, sorted_.places / sorted_.groups), split);
  }

  void scatter(const float* out_PC, std::int64_t width, float* y) const {
    for_rows(engine_, choices_.rows, [&](std::int64_t first, std::int64_t count) {
      for (std::int64_t t = first; t < first + count; ++t) {
        std::fill(y + t * width, y + (t + 1) * width, 0.0f);
        for (std::int64_t i = t * choices_.each; i < (t + 1) * choices_.each; ++i)
          if (sorted_.place_S[i] >= 0)
            engine_.kernels->add_scaled(choices_.strengths[i], out_PC + sorted_.place_S[i] * width, y + t * width,
                                        width);
      }
    });
  }

  const Engine& engine_;
  Arena& arena_;
  std::span<const FeedForward> experts_;
  const Choices& choices_;
  Sorted sorted_;
};

} // namespace

Choices choose(const Engine& engine, Arena& arena, const MixtureRouter& router, const float* x, std::int64_t rows) {
  const std::int64_t count = router.experts, k = router.active;
  auto* scores = arena.take<float>(rows * count);
  auto* experts = arena.take<std::int32_t>(rows * k);
  auto* strengths = arena.take<float>(rows * k);
  const auto each = [&](std::int64_t t) {
    float* score = scores + t * count;
    for (std::int64_t e = 0; e < count; ++e)
      score[e] = engine.kernels->dot(router.weights_EC + e * router.width, x + t * router.width, router.width);
    if (std::all_of(score, score + count, [](float one) { return std::isfinite(one); })) {
      const std::int64_t found = top_k(*engine.kernels, score, count, k, 1.0f, experts + t * k, strengths + t * k);
      std::fill(experts + t * k + found, experts + (t + 1) * k, -1); // too far behind to have a share
    } else {
      std::fill_n(experts + t * k, k, 0);
      std::fill_n(strengths + t * k, k, std::numeric_limits<float>::quiet_NaN());
    }
  };
  for_rows(engine, rows, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t t = first; t < first + count; ++t) each(t);
  });
  return {rows, k, experts, strengths};
}

void mix(const Engine& engine, Arena& arena, std::span<const FeedForward> experts, const Choices& choices,
         const float* x, float* y) {
  if (choices.rows > 0 && !experts.empty()) Layer(engine, arena, experts, choices).run(x, y);
}

} // namespace tenon::cpu

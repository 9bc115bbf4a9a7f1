// What a plain mixture layer is in any instructions: rows sorted by expert, two regions of tiles, the results added up.
// Included by each file that brings the instructions, compiled for them.
#pragma once

#include "tests/bench/plain_mixture.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace tenon::cpu::bench {
namespace {

constexpr std::int64_t kAhead = 32 * 64; // numbers of a panel: 4 KiB

struct Sorted {
  std::vector<std::int32_t> row_P, place_S, active; // row of a place, place of a choice, experts that somebody chose
  std::vector<std::int32_t> first_E, count_E;
};

Sorted sorted(const PlainLayer& layer, const Choices& choices) {
  const std::int64_t all = choices.rows * choices.each;
  Sorted out;
  out.row_P.resize(all), out.place_S.resize(all), out.first_E.resize(layer.experts), out.count_E.resize(layer.experts);
  for (std::int64_t i = 0; i < all; ++i) ++out.count_E[choices.experts[i]];
  std::int32_t places = 0;
  for (std::int32_t e = 0; e < layer.experts; ++e) {
    out.first_E[e] = std::exchange(places, places + out.count_E[e]);
    if (out.count_E[e] > 0) out.active.push_back(e);
  }
  std::vector<std::int32_t> next = out.first_E;
  for (std::int64_t i = 0; i < all; ++i) {
    out.place_S[i] = next[choices.experts[i]]++;
    out.row_P[out.place_S[i]] = static_cast<std::int32_t>(i / choices.each);
  }
  return out;
}

// tile<R>(first row) until none is left.
template <int R, class Tile>
void for_rows(std::int64_t rows, const Tile& tile) {
  std::int64_t i = 0;
  for (; rows - i >= R; i += R) tile.template operator()<R>(i);
  if constexpr (R > 1) {
    if (rows > i) for_rows<R - 1>(rows - i, [&]<int Q>(std::int64_t next) { tile.template operator()<Q>(i + next); });
  }
}

// each(expert, panel) over all panels of active experts, a few panels a task.
template <class Each>
void for_panels(Pool& pool, const Sorted& rows, std::int64_t panels, std::int64_t most, const Each& each) {
  const auto active = static_cast<std::int64_t>(rows.active.size());
  const std::int64_t few = std::clamp<std::int64_t>(panels * active / 16, 1, most), parts = (panels + few - 1) / few;
  pool.run(active * parts, [&](std::int64_t task) {
    for (std::int64_t p = task % parts * few; p < std::min(panels, (task % parts + 1) * few); ++p)
      each(rows.active[task / parts], p);
  });
}

// Vectors: kMost rows of a tile at most; multiply<R>(rows, panel, inputs, sums) gives a panel's 64 sums of R rows;
// gated(sums, out) stores silu of the first 32 times the others in bfloat16; store(sums, out) stores 64 numbers;
// add_up(strengths, rows, each, width, out) a weighted sum of rows, in bfloat16.
template <class Vectors>
void mix_plainly(Pool& pool, const PlainLayer& layer, const Choices& choices, const std::uint16_t* x,
                 std::uint16_t* y) {
  static std::vector<std::uint16_t> inner;
  static std::vector<float> out;
  const std::int64_t all = choices.rows * choices.each, width = layer.width, wide = layer.inner;
  inner.resize(all * wide), out.resize(all * width);
  const Sorted rows = sorted(layer, choices);
  for_panels(pool, rows, wide / 32, 8, [&](std::int64_t e, std::int64_t p) {
    const std::uint16_t* panel = layer.first + (e * (wide / 32) + p) * 64 * width;
    for_rows<Vectors::kMost>(rows.count_E[e], [&]<int R>(std::int64_t i) {
      const std::int64_t first = rows.first_E[e] + i;
      const std::uint16_t* from[R];
      for (int r = 0; r < R; ++r) from[r] = x + rows.row_P[first + r] * width;
      typename Vectors::Sums sums[R];
      Vectors::template multiply<R>(from, panel, width, sums);
      for (int r = 0; r < R; ++r) Vectors::gated(sums[r], inner.data() + (first + r) * wide + p * 32);
    });
  });
  for_panels(pool, rows, width / 64, 4, [&](std::int64_t e, std::int64_t p) {
    const std::uint16_t* panel = layer.second + (e * (width / 64) + p) * 64 * wide;
    for_rows<Vectors::kMost>(rows.count_E[e], [&]<int R>(std::int64_t i) {
      const std::int64_t first = rows.first_E[e] + i;
      const std::uint16_t* from[R];
      for (int r = 0; r < R; ++r) from[r] = inner.data() + (first + r) * wide;
      typename Vectors::Sums sums[R];
      Vectors::template multiply<R>(from, panel, wide, sums);
      for (int r = 0; r < R; ++r) Vectors::store(sums[r], out.data() + (first + r) * width + p * 64);
    });
  });
  constexpr std::int64_t block = 16;
  pool.run((choices.rows + block - 1) / block, [&](std::int64_t task) {
    for (std::int64_t t = task * block; t < std::min(choices.rows, (task + 1) * block); ++t)
      for (std::int64_t c = 0; c < width; c += Vectors::kLanes)
        Vectors::add_up(choices, rows.place_S.data(), out.data() + c, width, t, y + t * width + c);
  });
}

} // namespace
} // namespace tenon::cpu::bench

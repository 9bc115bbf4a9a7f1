// Attention and its gradient in float32, written once over a vector type (vectors.hpp).
#pragma once

#include "kernels/cpu/vectors.hpp"

namespace tenon::cpu {

// Up to 64 keys as columns: out (depth, 64), zeros where there is no key.
template <class V>
void transpose_keys(const float* k, std::int64_t stride, std::int64_t keys, std::int64_t depth, float* out) {
  const std::int64_t whole_keys = keys - keys % V::width, whole_depth = depth - depth % V::width;
  for (std::int64_t j = 0; j < whole_keys; j += V::width)
    for (std::int64_t d = 0; d < whole_depth; d += V::width)
      V::transpose(k + j * stride + d, stride, out + d * kPanel + j, kPanel);
  for (std::int64_t j = 0; j < kPanel; ++j)
    for (std::int64_t d = j < whole_keys ? whole_depth : 0; d < depth; ++d)
      out[d * kPanel + j] = j < keys ? k[j * stride + d] : 0.0f;
}

// Scores of one row to exp(score - largest), zeros beyond what it sees, up to `padded` numbers. Four vectors at a time,
// since a maximum and a sum wait for themselves; ask() with every four.
template <class V, class Ask>
void soften(float* score, std::int64_t visible, std::int64_t padded, float& largest, float& sum, Ask ask) {
  constexpr float nothing = -std::numeric_limits<float>::infinity();
  constexpr std::int64_t several = 4 * V::width;
  const std::int64_t full = visible / several * several;
  V most[4], total[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) most[i] = V::set(nothing), total[i] = V::zero();
  for (std::int64_t j = 0; j < full; j += several)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) most[i] = V::max(most[i], V::load(score + j + i * V::width));
  std::int64_t rest = full;
  for (; rest + V::width <= visible; rest += V::width) most[0] = V::max(most[0], V::load(score + rest));
  float top = V::max(V::max(most[0], most[1]), V::max(most[2], most[3])).largest();
  for (; rest < visible; ++rest) top = score[rest] > top ? score[rest] : top;
  const V below = V::set(top);
  for (std::int64_t j = 0; j < full; j += several) {
    ask();
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      float* at = score + j + i * V::width;
      const V weight = exponential(V::load(at) - below);
      weight.store(at), total[i] = total[i] + weight;
    }
  }
  for_vectors<V>(visible - full, [&](std::int64_t j, std::int64_t n) {
    put(score + full + j, n, exponential(get<V>(score + full + j, n) - below));
    total[0] = total[0] + get<V>(score + full + j, n); // zeros in lanes beyond
  });
  const std::int64_t end = (visible + V::width - 1) / V::width * V::width;
  for (std::int64_t j = visible; j < end; ++j) score[j] = 0.0f;
  for (std::int64_t j = end; j < padded; j += V::width) V::zero().store(score + j);
  largest = top;
  sum = ((total[0] + total[1]) + (total[2] + total[3])).sum();
}

template <class V>
void attend(const AttentionTile& tile) {
  float *kt = tile.scratch, *scores = tile.scratch + kPanel * tile.depth;
  const std::int64_t padded = (tile.keys + kPanel - 1) / kPanel * kPanel;
  for (std::int64_t first = 0; first < tile.keys; first += kPanel) {
    const std::int64_t keys = tile.keys - first < kPanel ? tile.keys - first : kPanel;
    transpose_keys<V>(tile.k + first * tile.stride, tile.stride, keys, tile.depth, kt);
    multiply<V>(tile.rows, tile.q, tile.depth, kt, kPanel, tile.depth, scores + first, kChunk, kPanel);
  }
  for (std::int64_t r = 0; r < tile.rows; ++r)
    soften<V>(scores + r * kChunk, tile.visible[r], padded, tile.largest[r], tile.sum[r], [] {});
  multiply<V>(tile.rows, scores, kChunk, tile.v, tile.stride, tile.keys, tile.out, tile.depth, tile.depth);
}

// Dao et al. 2022 (arXiv 2205.14135), algorithm 4: the weights P are computed again, from the scores and what forward
// kept of every row, and with dP = dy v^T and D the sum of dy y,
//
//   dv = P^T dy,   dS = P (dP - D),   dq = dS k scale,   dk = dS^T q scale.
template <class V>
void attend_gradient(const AttentionGradientTile& tile) {
  const std::int64_t depth = tile.depth, q_stride = tile.q_stride;
  float *k_columns = tile.scratch, *v_columns = k_columns + kChunk * depth, *weights = v_columns + kChunk * depth,
        *changes = weights + kTileRows * kChunk;
  for (std::int64_t first = 0; first < tile.keys; first += kPanel) {
    const std::int64_t keys = tile.keys - first < kPanel ? tile.keys - first : kPanel, at = first * tile.kv_stride;
    transpose_keys<V>(tile.k + at, tile.kv_stride, keys, depth, k_columns + first * depth);
    transpose_keys<V>(tile.v + at, tile.kv_stride, keys, depth, v_columns + first * depth);
  }
  for (std::int64_t row = 0; row < tile.rows; row += kTileRows) {
    const std::int64_t rows = tile.rows - row < kTileRows ? tile.rows - row : kTileRows,
                       keys = row + rows < tile.keys ? row + rows : tile.keys,
                       padded = (keys + kPanel - 1) / kPanel * kPanel;
    const float *q = tile.q + row * q_stride, *d_y = tile.d_y + row * q_stride;
    for (std::int64_t first = 0; first < padded; first += kPanel) {
      multiply<V>(rows, q, q_stride, k_columns + first * depth, kPanel, depth, weights + first, kChunk, kPanel);
      multiply<V>(rows, d_y, q_stride, v_columns + first * depth, kPanel, depth, changes + first, kChunk, kPanel);
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      float *weight = weights + r * kChunk, *change = changes + r * kChunk;
      const V scale = V::set(tile.scale), log_sum = V::set(tile.log_sum[(row + r) * tile.heads]),
              dot = V::set(tile.dot[row + r]);
      for (std::int64_t j = 0; j < padded; j += V::width) {
        const V one = exponential(V::load(weight + j) * scale - log_sum);
        one.store(weight + j);
        (one * (V::load(change + j) - dot) * scale).store(change + j);
      }
      for (std::int64_t j = row + r + 1; j < padded; ++j) weight[j] = change[j] = 0.0f; // of keys it does not see
    }
    multiply<V, Left::rows, true>(rows, changes, kChunk, tile.k, tile.kv_stride, keys, tile.d_q + row * q_stride,
                                  q_stride, depth);
    multiply<V, Left::columns, true>(keys, changes, kChunk, q, q_stride, rows, tile.d_k, q_stride, depth);
    multiply<V, Left::columns, true>(keys, weights, kChunk, d_y, q_stride, rows, tile.d_v, q_stride, depth);
  }
}

} // namespace tenon::cpu

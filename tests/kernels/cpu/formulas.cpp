// A run of blocks beside its formulas in double precision, over the same dequantised weights: norms, rotation, grouped
// heads, attention over what was kept, both kinds of feed-forward, and both sums with what went in.
#include "tests/kernels/cpu/small_model.hpp"

#include <catch2/catch.hpp>

#include <numeric>

namespace tenon::cpu {
namespace {

using namespace test;

using Row = std::vector<double>;
using RowsOf = std::vector<Row>; // a row a position

RowsOf product(const Linear& linear, const RowsOf& x) {
  RowsOf out(x.size(), Row(static_cast<std::size_t>(linear.outputs())));
  std::vector<float> w(static_cast<std::size_t>(linear.inputs()));
  for (std::int64_t f = 0; f < linear.outputs(); ++f) {
    unpack_row(linear.weight, f, w);
    for (std::size_t t = 0; t < x.size(); ++t) out[t][f] = std::inner_product(w.begin(), w.end(), x[t].begin(), 0.0);
  }
  return out;
}

Row normalized(const Norm& norm, const double* x, std::size_t width, double eps) {
  Row out(x, x + width);
  const double mean = norm.bias ? std::accumulate(out.begin(), out.end(), 0.0) / static_cast<double>(width) : 0.0;
  double squares = 0;
  for (double& one : out) one -= mean, squares += one * one;
  for (std::size_t i = 0; i < width; ++i)
    out[i] = out[i] / std::sqrt(squares / static_cast<double>(width) + eps) * norm.weight[i] +
             (norm.bias ? norm.bias[i] : 0.0);
  return out;
}

RowsOf normalized(const Norm& norm, const RowsOf& x, double eps) {
  RowsOf out;
  for (const Row& row : x) out.push_back(normalized(norm, row.data(), row.size(), eps));
  return out;
}

// Heads of a row at this position: normalised where the block says so, then turned.
void place(Row& row, const float* norm, const RunShape& shape, double position) {
  const auto depth = static_cast<std::size_t>(shape.heads.depth), half = depth / 2;
  for (std::size_t at = 0; at < row.size(); at += depth) {
    if (norm) {
      const Row head = normalized({norm, nullptr}, row.data() + at, depth, shape.norm_eps);
      std::copy(head.begin(), head.end(), row.begin() + static_cast<std::ptrdiff_t>(at));
    }
    for (std::size_t i = 0; shape.rope_theta > 0 && i < half; ++i) {
      const double angle = position *
                           std::pow(shape.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(depth)),
                   a = row[at + i], b = row[at + i + half];
      row[at + i] = a * std::cos(angle) - b * std::sin(angle);
      row[at + i + half] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
}

RowsOf attended(const HeadShape& heads, const RowsOf& q, const RowsOf& k, const RowsOf& v) {
  RowsOf out(q.size(), Row(q[0].size()));
  for (std::size_t t = 0; t < q.size(); ++t)
    for (std::int64_t head = 0; head < heads.heads; ++head) {
      const std::int64_t at = head * heads.depth, from = head * heads.kv_heads / heads.heads * heads.depth;
      Row weight(t + 1);
      double sum = 0;
      for (std::size_t u = 0; u <= t; ++u) {
        const double score =
            std::inner_product(q[t].begin() + at, q[t].begin() + at + heads.depth, k[u].begin() + from, 0.0);
        sum += weight[u] = std::exp(score / std::sqrt(static_cast<double>(heads.depth)));
      }
      for (std::size_t u = 0; u <= t; ++u)
        for (std::int64_t d = 0; d < heads.depth; ++d) out[t][at + d] += weight[u] / sum * v[u][from + d];
    }
  return out;
}

void add(RowsOf& h, const RowsOf& change) {
  for (std::size_t t = 0; t < h.size(); ++t)
    for (std::size_t c = 0; c < h[t].size(); ++c) h[t][c] += change[t][c];
}

RowsOf by_formula(const Model& model, RowsOf h) {
  const RunShape& shape = model.shape;
  for (const Block& block : model.blocks) {
    RowsOf n = normalized(block.attention_norm, h, shape.norm_eps), q = product(block.q, n), k = product(block.k, n);
    for (std::size_t t = 0; t < h.size(); ++t)
      place(q[t], block.q_norm, shape, static_cast<double>(t)),
          place(k[t], block.k_norm, shape, static_cast<double>(t));
    add(h, product(block.o, attended(shape.heads, q, k, product(block.v, n))));
    n = normalized(block.ffn_norm, h, shape.norm_eps);
    RowsOf inner = product(block.up, n);
    const RowsOf gate = block.gate ? product(*block.gate, n) : RowsOf();
    for (std::size_t t = 0; t < h.size(); ++t)
      for (std::size_t f = 0; f < inner[t].size(); ++f) {
        const double u = inner[t][f], g = block.gate ? gate[t][f] : 0.0;
        inner[t][f] = block.gate ? u * g / (1 + std::exp(-g))
                                 : 0.5 * u * (1 + std::tanh(std::sqrt(2 / M_PI) * (u + 0.044715 * u * u * u)));
      }
    add(h, product(block.down, inner));
  }
  return h;
}

} // namespace

TEST_CASE("a run of blocks is what its formulas give in double precision, in every tier, format and kind") {
  constexpr std::int64_t prompt = 70, steps = 3, all = prompt + steps;
  const std::vector<float> h = noise(all * kWidth, 5), bias = noise(kWidth, 6, 0.3f),
                           head_norm = noise(kHeads.depth, 7);
  RowsOf exact;
  for (std::int64_t t = 0; t < all; ++t) exact.emplace_back(h.begin() + t * kWidth, h.begin() + (t + 1) * kWidth);
  Pool pool(2);
  for (const PackedFormat format : kFormats)
    for (const bool gated : {true, false}) {
      Model model(format);
      for (Block& block : model.blocks)
        if (!gated) {
          block.gate.reset(), block.attention_norm.bias = block.ffn_norm.bias = bias.data();
          block.q_norm = block.k_norm = head_norm.data();
        }
      if (!gated) model.shape.rope_theta = 0;
      const RowsOf expected = by_formula(model, exact);
      for (const Tier tier : supported_tiers()) {
        CAPTURE(tier_name(tier), packed_name(format), gated);
        const Engine engine{&kernels_of(tier), &pool};
        Store store(model.shape.keys, 1, all);
        Arena arena;
        const RunSpan first{0, prompt, 0};
        std::vector<float> found =
            model.run(engine, arena, store, {&first, 1}, {h.begin(), h.begin() + prompt * kWidth});
        for (std::int64_t t = prompt; t < all; ++t) {
          const RunSpan next{0, 1, t};
          const std::vector<float> row =
              model.run(engine, arena, store, {&next, 1}, {h.begin() + t * kWidth, h.begin() + (t + 1) * kWidth});
          found.insert(found.end(), row.begin(), row.end());
        }
        double off = 0, change = 0;
        for (std::int64_t t = 0; t < all; ++t)
          for (std::int64_t c = 0; c < kWidth; ++c) {
            const double want = expected[t][c];
            off += std::pow(found[t * kWidth + c] - want, 2), change += std::pow(want - h[t * kWidth + c], 2);
          }
        CHECK(std::sqrt(off / change) < kTolerance.run);
      }
    }
}

} // namespace tenon::cpu

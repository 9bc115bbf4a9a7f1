// One mixture layer (C=1024, F=2816, E=32, top-2, uniform random choices) by our operator in bf16, int8 and int4, by a
// plain baseline in bf16 and by LibTorch's eager loop over experts in bfloat16, all in one interleaved run with the
// machine's limits measured around every figure; in a round all get the same choices. Prints medians: ms a layer, the
// fraction of bandwidth (few rows) or of the peak, and how many times as long the others take as ours in bf16 of the
// same round. Never a test.
//
//   tenon_mixture_bench [ROUNDS]     TENON_THREADS chooses threads; needs 4.5 GB
//   tenon_mixture_bench serve        for peers/mixture.py: for every number of rows on standard input a line with the
//                                    seconds of one layer in bf16, the bandwidth and the peak
#include "kernels/cpu/mixture.hpp"
#include "tests/bench/machine.hpp"
#include "tests/bench/plain_mixture.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <array>
#include <cstring>
#include <random>

namespace tenon::cpu::bench {
namespace {

constexpr std::int64_t kWidth = 1024, kInner = 2816, kExperts = 32, kEach = 2, kLayers = 2;
constexpr std::int64_t kMostRows = 512;

// Weights that are alike in every panel: their values cost no time here.
std::byte* fill(PackedFormat format, std::int64_t outputs, std::int64_t inputs, std::byte* at) {
  static std::vector<float> w(kPanel * kInner);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>((i * 2654435761u >> 8) % 2001) / 2e4f - 0.05f;
  const std::size_t panel = panel_bytes(format, inputs).value();
  pack(format, kPanel, inputs, std::span(w).first(kPanel * inputs), {at, panel});
  for (std::int64_t p = 1; p < outputs / kPanel; ++p) std::memcpy(at + p * panel, at, panel);
  return at + outputs / kPanel * panel;
}

std::int64_t expert_bytes(PackedFormat format) {
  return static_cast<std::int64_t>(2 * packed_bytes(format, kInner, kWidth).value() +
                                   packed_bytes(format, kWidth, kInner).value());
}

struct Chosen {
  std::vector<std::int32_t> experts;
  std::vector<float> strengths;
  std::int64_t distinct = 0;

  Chosen(std::int64_t rows, std::mt19937& random) : strengths(rows * kEach, 1.0f / kEach) {
    std::vector<bool> seen(kExperts);
    for (std::int64_t i = 0; i < rows * kEach; ++i) {
      std::int32_t e = 0;
      do e = static_cast<std::int32_t>(random() % kExperts);
      while (i % kEach == 1 && e == experts.back());
      experts.push_back(e), seen[e] = true;
    }
    distinct = std::count(seen.begin(), seen.end(), true);
  }
  Choices choices() const {
    return {static_cast<std::int64_t>(experts.size()) / kEach, kEach, experts.data(), strengths.data()};
  }
};

class Ours {
 public:
  explicit Ours(PackedFormat format) : memory_(kLayers * kExperts * expert_bytes(format)) {
    std::byte* at = memory_.bytes().data();
    const auto linear = [&](std::int64_t outputs, std::int64_t inputs) {
      Linear made{{format, outputs, inputs, at}};
      at = fill(format, outputs, inputs, at);
      return made;
    };
    for (auto& layer : layers_)
      for (std::int64_t e = 0; e < kExperts; ++e) {
        FeedForward expert;
        expert.gate = linear(kInner, kWidth), expert.up = linear(kInner, kWidth), expert.down = linear(kWidth, kInner);
        layer.push_back(expert);
      }
  }
  void operator()(std::int64_t layer, const Choices& choices) {
    arena_.reset();
    mix(engine(), arena_, layers_[layer], choices, x_.data(), y_.data());
  }

 private:
  HugeMemory memory_;
  std::vector<FeedForward> layers_[kLayers];
  Arena arena_;
  std::vector<float> x_ = std::vector<float>(kMostRows * kWidth, 0.1f), y_ = x_;
};

class Plain {
 public:
  Plain() : memory_(kLayers * kExperts * expert_bytes(PackedFormat::bf16)) {
    std::byte* at = memory_.bytes().data();
    for (PlainLayer& layer : layers_) {
      layer = {kExperts, kWidth, kInner};
      layer.first = reinterpret_cast<const std::uint16_t*>(at);
      at = fill(PackedFormat::bf16, 2 * kInner * kExperts, kWidth, at);
      layer.second = reinterpret_cast<const std::uint16_t*>(at);
      at = fill(PackedFormat::bf16, kWidth * kExperts, kInner, at);
    }
  }
  void operator()(std::int64_t layer, const Choices& choices) {
    plain_mix(*engine().pool, layers_[layer], choices, x_.data(), y_.data());
  }

 private:
  HugeMemory memory_;
  PlainLayer layers_[kLayers];
  std::vector<std::uint16_t> x_ = std::vector<std::uint16_t>(kMostRows * kWidth, 0x3dcc), y_ = x_;
};

// As model code writes it: for every expert the rows that chose it, three linears, index_add.
class Eager {
 public:
  void operator()(std::int64_t layer, const Choices& choices) {
    const at::Tensor x = x_.narrow(0, 0, choices.rows);
    const at::Tensor chosen =
        at::from_blob(const_cast<std::int32_t*>(choices.experts), {choices.rows, kEach}, at::kInt);
    const at::Tensor strengths = at::from_blob(const_cast<float*>(choices.strengths), {choices.rows, kEach});
    at::Tensor y = at::zeros({choices.rows, kWidth});
    for (std::int64_t e = 0; e < kExperts; ++e) {
      const at::Tensor where = chosen.eq(e).nonzero();
      if (where.size(0) == 0) continue;
      const at::Tensor rows = where.select(1, 0), in = x.index_select(0, rows);
      const at::Tensor inner = at::silu(at::linear(in, gate_[layer][e])).mul_(at::linear(in, up_[layer][e]));
      const at::Tensor weight = strengths.index({rows, where.select(1, 1)}).unsqueeze(1);
      y.index_add_(0, rows, at::linear(inner, down_[layer][e]).to(at::kFloat).mul_(weight));
    }
  }

 private:
  static at::Tensor weights(std::int64_t outputs, std::int64_t inputs) {
    return at::full({kLayers, kExperts, outputs, inputs}, 0.01, at::kBFloat16);
  }
  at::Tensor gate_ = weights(kInner, kWidth), up_ = weights(kInner, kWidth), down_ = weights(kWidth, kInner),
             x_ = at::full({kMostRows, kWidth}, 0.1, at::kBFloat16);
};

struct Series {
  std::vector<double> ms, of_read, of_peak;
  void print(const char* name, std::int64_t rows, const Series& ours) const {
    std::vector<double> times;
    for (std::size_t i = 0; i < ms.size(); ++i) times.push_back(ms[i] / ours.ms[i]);
    std::printf("%4d rows  %-18s %8.3f ms  %.2f of the %s  %.2f times ours\n", static_cast<int>(rows), name, median(ms),
                median(rows <= 64 ? of_read : of_peak), rows <= 64 ? "bandwidth" : "peak", median(times));
  }
};

class Bench {
 public:
  void run(std::int64_t rows, int rounds) {
    const auto bf16 = PackedFormat::bf16;
    Series bf16_s, plain_s, eager_s, int8_s, int4_s;
    for (int i = 0; i < rounds; ++i) {
      const Round round = {Chosen(rows, random_), Chosen(rows, random_)};
      const auto ours = [&] { one(bf16_s, round, bf16, [&](auto... a) { bf16_(a...); }); };
      if (i % 2 == 0) ours();
      one(plain_s, round, bf16, [&](auto... a) { plain_(a...); });
      if (i % 2 == 1) ours();
      at::set_num_threads(engine().pool->threads());
      one(eager_s, round, bf16, [&](auto... a) { eager_(a...); });
      at::set_num_threads(1);
      one(int8_s, round, PackedFormat::int8g32, [&](auto... a) { int8_(a...); });
      one(int4_s, round, PackedFormat::int4g32m, [&](auto... a) { int4_(a...); });
    }
    bf16_s.print("bf16", rows, bf16_s), plain_s.print("bf16, plain", rows, bf16_s);
    eager_s.print("bf16, LibTorch", rows, bf16_s);
    int8_s.print("int8", rows, bf16_s), int4_s.print("int4", rows, bf16_s);
  }
  const Machine& machine() const { return machine_; }

 private:
  using Round = std::array<Chosen, kLayers>;

  template <class Layer>
  void one(Series& series, const Round& chosen, PackedFormat format, const Layer& layer) {
    const auto rows = static_cast<double>(chosen[0].choices().rows);
    machine_.measure();
    const double taken = seconds([&] {
      for (std::int64_t l = 0; l < kLayers; ++l) layer(l, chosen[l].choices());
    });
    std::int64_t experts = 0;
    for (const Chosen& one : chosen) experts += one.distinct;
    const double bytes = static_cast<double>(experts * expert_bytes(format)),
                 operations = 6.0 * static_cast<double>(kWidth * kInner * kEach * kLayers) * rows;
    series.ms.push_back(taken * 1e3 / kLayers);
    series.of_read.push_back(bytes / taken / 1e9 / machine_.read());
    series.of_peak.push_back(operations / taken / 1e9 /
                             (format == PackedFormat::bf16 ? machine_.bf16() : machine_.int8()));
  }

  std::mt19937 random_{1};
  Ours bf16_{PackedFormat::bf16}, int8_{PackedFormat::int8g32}, int4_{PackedFormat::int4g32m};
  Plain plain_;
  Eager eager_;
  Machine machine_;
};

int serve() {
  Ours layer(PackedFormat::bf16);
  Machine machine;
  std::mt19937 random(1);
  for (std::int64_t rows = 0; std::scanf("%ld", &rows) == 1 && rows >= 1 && rows <= kMostRows;) {
    const Chosen chosen(rows, random);
    machine.measure();
    const double taken = seconds([&] { layer(static_cast<std::int64_t>(random() % kLayers), chosen.choices()); });
    std::printf("%.9f %.1f %.1f\n", taken, machine.read(), machine.bf16());
    std::fflush(stdout);
  }
  return 0;
}

} // namespace
} // namespace tenon::cpu::bench

int main(int argc, char** argv) {
  using namespace tenon::cpu;
  if (argc > 1 && std::strcmp(argv[1], "serve") == 0) return bench::serve();
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  if (rounds < 1) return std::fputs("usage: tenon_mixture_bench [ROUNDS | serve]\n", stderr), 2;
  if (!supported(Tier::avx512)) return std::fputs("the baseline needs AVX-512 with BF16\n", stderr), 1;
  const c10::InferenceMode inference;
  bench::Bench all;
  for (const std::int64_t rows : {1, 8, 64, 512}) all.run(rows, rounds);
  all.machine().print();
}

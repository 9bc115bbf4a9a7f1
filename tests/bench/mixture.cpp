// One mixture layer (C=1024, F=2816, E=32, top-2, uniform random choices) by our operator in bf16, and beside it by a
// plain baseline in bf16, by LibTorch's eager loop over experts in bfloat16, and by our operator in int8 and int4.
// Every one of these forms a pair with ours in bf16: the same choices, one after the other between two probes of the
// machine, in turn first. Prints medians: ms a layer, the fraction of bandwidth (few rows) or of the peak, and how many
// times as long as ours of its pair each took. Ours reads and writes rows of float32, the others of bfloat16. That the
// plain baseline computes what ours does is checked first. Never a test.
//
//   tenon_mixture_bench [ROUNDS]     7 unless said; TENON_TIER and TENON_THREADS choose tier and threads; needs 4.5 GB.
//                                    The plain baseline is written for AVX-512 and AVX2
//   tenon_mixture_bench serve        for peers/mixture.py: answers every line on standard input with one of JSON. A
//                                    number of rows: the seconds of one layer in bf16, and how many experts were
//                                    chosen in it, after another that only wakes the threads; `probe`: what the machine
//                                    can do now; `about`: what computes
#include "kernels/cpu/mixture.hpp"
#include "tests/bench/machine.hpp"
#include "tests/bench/plain_mixture.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <torch/version.h>

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>
#include <random>

namespace tenon::cpu::bench {
namespace {

constexpr std::int64_t kWidth = 1024, kInner = 2816, kExperts = 32, kEach = 2, kLayers = 2;
constexpr std::int64_t kMostRows = 512;

// Weights that are alike in every panel: their values cost no time here. (64,C)
std::vector<float> panel_weights(std::int64_t inputs) {
  std::vector<float> w(kPanel * inputs);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>((i * 2654435761u >> 8) % 2001) / 2e4f - 0.05f;
  return w;
}

std::byte* fill(PackedFormat format, std::int64_t outputs, std::int64_t inputs, std::byte* at) {
  const std::size_t panel = panel_bytes(format, inputs).value();
  pack(format, kPanel, inputs, panel_weights(inputs), {at, panel});
  for (std::int64_t p = 1; p < outputs / kPanel; ++p) std::memcpy(at + p * panel, at, panel);
  return at + outputs / kPanel * panel;
}

// The same weights as gate and as up, half a panel of either side by side, as the plain layer has them.
std::byte* fill_gated(std::int64_t outputs, std::int64_t inputs, std::byte* at) {
  const std::size_t panel = panel_bytes(PackedFormat::bf16, inputs).value();
  const std::vector<float> w = panel_weights(inputs);
  const std::int64_t half = kPanel / 2 * inputs;
  for (std::int64_t part = 0; part < 2; ++part) {
    std::vector<float> twice(w.begin() + part * half, w.begin() + (part + 1) * half);
    twice.insert(twice.end(), w.begin() + part * half, w.begin() + (part + 1) * half);
    pack(PackedFormat::bf16, kPanel, inputs, twice, {at + part * panel, panel});
  }
  for (std::int64_t p = 2; p < 2 * outputs / kPanel; ++p) std::memcpy(at + p * panel, at + p % 2 * panel, panel);
  return at + 2 * outputs / kPanel * panel;
}

// Rows that bfloat16 holds.
std::vector<std::uint16_t> some_rows() {
  std::vector<std::uint16_t> out(kMostRows * kWidth);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = nn::f32_to_bf16(static_cast<float>((i * 2246822519u >> 9) % 2001) / 1e4f - 0.1f);
  return out;
}

std::vector<float> widened(const std::vector<std::uint16_t>& rows) {
  std::vector<float> out;
  for (const std::uint16_t one : rows) out.push_back(nn::bf16_to_f32(one));
  return out;
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
  float y(std::int64_t i) const { return y_[static_cast<std::size_t>(i)]; }

 private:
  HugeMemory memory_;
  std::vector<FeedForward> layers_[kLayers];
  Arena arena_;
  std::vector<float> x_ = widened(some_rows()), y_ = x_;
};

class Plain {
 public:
  Plain() : memory_(kLayers * kExperts * expert_bytes(PackedFormat::bf16)) {
    std::byte* at = memory_.bytes().data();
    for (PlainLayer& layer : layers_) {
      layer = {kExperts, kWidth, kInner};
      layer.first = reinterpret_cast<const std::uint16_t*>(at);
      at = fill_gated(kInner * kExperts, kWidth, at);
      layer.second = reinterpret_cast<const std::uint16_t*>(at);
      at = fill(PackedFormat::bf16, kWidth * kExperts, kInner, at);
    }
  }
  void operator()(std::int64_t layer, const Choices& choices) {
    mix_(*engine().pool, layers_[layer], choices, x_.data(), y_.data());
  }
  float y(std::int64_t i) const { return nn::bf16_to_f32(y_[static_cast<std::size_t>(i)]); }

 private:
  PlainMix* mix_ = engine().kernels->tier == Tier::avx512 ? plain_mix_avx512 : plain_mix_avx2;
  HugeMemory memory_;
  PlainLayer layers_[kLayers];
  std::vector<std::uint16_t> x_ = some_rows(), y_ = x_;
};

// As model code writes it: for every expert the rows that chose it, three linears, index_add.
class Eager {
 public:
  static void wake() { at::ones({1 << 18}); } // so many numbers that all threads fill them
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

constexpr std::int64_t kStreamed = 64; // rows up to which bandwidth is the limit

struct Side {
  const char* name;
  PackedFormat format;
  std::function<void(std::int64_t layer, const Choices& choices)> run;
  void (*wake)() = [] { engine().pool->run(engine().pool->threads(), [](std::int64_t) {}); }; // the threads it uses
  std::vector<double> ms = {}, reached = {}, times_ours = {};

  void print(std::int64_t rows) const {
    std::printf("%4d rows  %-14s %8.3f ms", static_cast<int>(rows), name, median(ms));
    if (median(reached) > 0) std::printf("  %.2f of the %s", median(reached), rows <= kStreamed ? "bandwidth" : "peak");
    if (!times_ours.empty()) {
      const auto [low, high] = std::minmax_element(times_ours.begin(), times_ours.end());
      std::printf("  %.2f times ours (%.2f to %.2f)", median(times_ours), *low, *high);
    }
    std::printf("\n");
  }
};

class Bench {
 public:
  // Whether ours and the plain one, if there is one, give the same but for the last digits of bfloat16.
  bool agree() {
    const Chosen chosen(kMostRows, random_);
    if (!plain_) return true;
    bf16_(0, chosen.choices()), (*plain_)(0, chosen.choices());
    float most = 0, off = 0;
    for (std::int64_t i = 0; i < kMostRows * kWidth; ++i)
      most = std::max(most, std::abs(bf16_.y(i))), off = std::max(off, std::abs(bf16_.y(i) - plain_->y(i)));
    std::printf("plain against ours: off by at most %.2g of %.2g\n", off, most);
    return most > 0 && off < most / 64;
  }

  void run(std::int64_t rows, int rounds) {
    const auto bf16 = PackedFormat::bf16;
    Side ours{"bf16", bf16, std::ref(bf16_)};
    std::vector<Side> others = {{"bf16, LibTorch", bf16, std::ref(eager_), Eager::wake},
                                {"int8", PackedFormat::int8g32, std::ref(int8_)},
                                {"int4", PackedFormat::int4g32m, std::ref(int4_)}};
    if (plain_) others.insert(others.begin(), {"bf16, plain", bf16, std::ref(*plain_)});
    for (int round = 0; round <= rounds; ++round) // the first warms up
      for (Side& other : others) {
        const Round chosen = {Chosen(rows, random_), Chosen(rows, random_)};
        double mine = 0, theirs = 0;
        const Limits machine = machine_.pair(
            round, [&] { mine = taken(ours, chosen); }, [&] { theirs = taken(other, chosen); });
        if (round == 0) continue;
        other.times_ours.push_back(theirs / mine);
        ours.ms.push_back(mine), ours.reached.push_back(reached(ours, mine, chosen, machine));
        other.ms.push_back(theirs), other.reached.push_back(reached(other, theirs, chosen, machine));
      }
    ours.print(rows);
    for (const Side& other : others) other.print(rows);
  }
  const Machine& machine() const { return machine_; }
  bool has_plain() const { return plain_.has_value(); }

 private:
  using Round = std::array<Chosen, kLayers>;

  // Milliseconds of a layer.
  static double taken(const Side& side, const Round& chosen) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20)); // by then no thread of the one before spins any more
    side.wake();
    return 1e3 / kLayers * seconds([&] {
             for (std::int64_t l = 0; l < kLayers; ++l) side.run(l, chosen[l].choices());
           });
  }

  // Which part of the machine's limit it was; 0 where that is not known.
  static double reached(const Side& side, double ms, const Round& chosen, const Limits& machine) {
    const auto rows = static_cast<double>(chosen[0].choices().rows);
    std::int64_t experts = 0;
    for (const Chosen& one : chosen) experts += one.distinct;
    const double bytes = static_cast<double>(experts * expert_bytes(side.format)),
                 operations = 6.0 * static_cast<double>(kWidth * kInner * kEach * kLayers) * rows,
                 limit = rows <= kStreamed ? machine.read : machine.peak(side.format);
    return limit > 0 ? (rows <= kStreamed ? bytes : operations) / (ms * kLayers) / 1e6 / limit : 0;
  }

  std::mt19937 random_{1};
  Ours bf16_{PackedFormat::bf16}, int8_{PackedFormat::int8g32}, int4_{PackedFormat::int4g32m};
  std::optional<Plain> plain_ = engine().kernels->tier != Tier::reference ? std::make_optional<Plain>() : std::nullopt;
  Eager eager_;
  Machine machine_;
};

int serve() {
  Ours layer(PackedFormat::bf16);
  Probe probe;
  std::mt19937 random(1);
  for (char word[16]; std::scanf("%15s", word) == 1; std::fflush(stdout)) {
    if (std::strcmp(word, "about") == 0) {
      std::printf("{\"name\": \"tenon\", \"version\": \"%s, g++ %s\", \"threads\": %d, \"flags\": \"%s\"}\n",
                  TENON_VERSION, __VERSION__, engine().pool->threads(), tier_name(engine().kernels->tier));
    } else if (std::strcmp(word, "probe") == 0) {
      const Limits machine = probe.measure(*engine().pool);
      std::printf("{\"read\": %.3f, \"peak\": %.3f}\n", machine.read, machine.peak(PackedFormat::bf16));
    } else {
      const std::int64_t rows = std::atoi(word);
      if (rows < 1 || rows > kMostRows) return 2;
      double taken = 0;
      std::int64_t experts = 0;
      for (int times = 0; times < 2; ++times) { // the first wakes the threads
        const Chosen chosen(rows, random);
        experts = chosen.distinct;
        taken = seconds([&] { layer(static_cast<std::int64_t>(random() % kLayers), chosen.choices()); });
      }
      std::printf("{\"seconds\": %.9f, \"experts\": %d}\n", taken, static_cast<int>(experts));
    }
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
  const c10::InferenceMode inference;
  at::set_num_threads(engine().pool->threads());
  bench::Bench all;
  if (!all.agree()) return std::fputs("the plain baseline computes something else\n", stderr), 1;
  for (const std::int64_t rows : {1, 8, 64, 512}) all.run(rows, rounds);
  if (!all.has_plain()) std::puts("the plain baseline is left out: it needs AVX2");
  std::printf("tenon %s, LibTorch %s; ", TENON_VERSION, TORCH_VERSION);
  all.machine().print();
}

// How near our products come to what this processor can do: every round measures the machine (bandwidth of reads, peaks
// of bfloat16 and int8 products) and then every format and number of rows; medians of the rounds' ratios are printed.
// Never a test: the figures are the machine's as much as ours.
//
//   tenon_kernels_bench [ROUNDS]     TENON_TIER and TENON_THREADS choose tier and threads
#include "kernels/cpu/product.hpp"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

namespace tenon::cpu {
namespace {

constexpr std::int64_t kInputs = 1536, kOutputs = 1536;
constexpr std::int64_t kStreamBytes = 160 << 20; // of weights walked through: several times the last cache

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Twelve independent chains of one instruction: no memory, no dependence to wait for.
#define TENON_CHAIN(name, instruction)                                                                          \
  __attribute__((target("avx512f"), noinline)) void name(std::int64_t times) {                                  \
    asm volatile(                                                                                               \
        "vpxorq %%zmm12, %%zmm12, %%zmm12\n vpxorq %%zmm13, %%zmm13, %%zmm13\n 1:\n"                            \
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\n" instruction                                            \
        " %%zmm12, %%zmm13, %%zmm\\n\n .endr\n"                                                                 \
        "sub $1, %0\n jnz 1b\n"                                                                                 \
        : "+r"(times)::"zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", \
          "zmm11", "zmm12", "zmm13", "cc");                                                                     \
  }
TENON_CHAIN(bf16_chain, "vdpbf16ps")
TENON_CHAIN(int8_chain, "vpdpbusd")

// 10^9 operations a second, all threads; 0 where the processor lacks the instruction.
double peak(const Engine& engine, void (*chain)(std::int64_t), double operations) {
  if (!supported(Tier::avx512)) return 0;
  constexpr std::int64_t times = 4000000;
  const int threads = engine.pool->threads();
  const double taken = seconds([&] { engine.pool->run(threads, [&](std::int64_t) { chain(times); }); });
  return operations * 12 * times * threads / taken / 1e9;
}

double bandwidth(const Engine& engine, const std::vector<std::uint64_t>& memory) {
  constexpr std::int64_t parts = 64;
  const auto part = static_cast<std::int64_t>(memory.size()) / parts;
  std::vector<std::uint64_t> sums(parts);
  const double taken = seconds([&] {
    engine.pool->run(parts, [&](std::int64_t p) {
      std::uint64_t lanes[8] = {};
      const std::uint64_t* from = memory.data() + p * part;
      for (std::int64_t i = 0; i + 8 <= part; i += 8)
        for (int lane = 0; lane < 8; ++lane) lanes[lane] += from[i + lane];
      for (const std::uint64_t lane : lanes) sums[p] += lane;
    });
  });
  return static_cast<double>(memory.size() * sizeof(std::uint64_t)) / taken / 1e9;
}

struct Case {
  PackedFormat format;
  std::int64_t rows;
  std::vector<double> rate = {}, fraction = {};
  bool streams() const { return rows <= 8; }
};

class Bench {
 public:
  Bench() : memory_(kStreamBytes / sizeof(std::uint64_t), 1) {
    std::vector<float> w(kInputs * kOutputs);
    for (std::size_t i = 0; i < w.size(); ++i)
      w[i] = static_cast<float>((i * 2654435761u >> 8) % 2001) / 1000.0f - 1.0f;
    for (std::vector<std::byte*>& of : weights_) {
      const auto format = static_cast<PackedFormat>(&of - weights_);
      const auto bytes = packed_bytes(format, kOutputs, kInputs).value();
      for (std::int64_t i = 0; i < kStreamBytes / static_cast<std::int64_t>(bytes); ++i) {
        of.push_back(arena_.take<std::byte>(static_cast<std::int64_t>(bytes)));
        if (i == 0)
          pack(format, kOutputs, kInputs, w, {of[0], bytes});
        else
          std::copy(of[0], of[0] + bytes, of[static_cast<std::size_t>(i)]);
      }
    }
    x_.assign(512 * kInputs, 0.5f);
    y_.resize(512 * kOutputs);
  }

  void round(std::vector<Case>& cases) {
    const Engine& one = engine();
    for (Case& c : cases) {
      const double read = bandwidth(one, memory_), bf16 = peak(one, bf16_chain, 64), int8 = peak(one, int8_chain, 128);
      const double limit = c.streams() ? read : c.format == PackedFormat::bf16 ? bf16 : int8;
      c.rate.push_back(measure(one, c));
      c.fraction.push_back(limit > 0 ? c.rate.back() / limit : 0);
      read_.push_back(read), bf16_.push_back(bf16), int8_.push_back(int8);
    }
  }

  void print_machine() const {
    std::printf("tier %s, %d threads; reads %.1f GB/s, bf16 %.0f and int8 %.0f GOP/s\n",
                tier_name(engine().kernels->tier), engine().pool->threads(), median(read_), median(bf16_),
                median(int8_));
  }

 private:
  // GB/s of weights where they stream, 10^9 operations a second above.
  double measure(const Engine& one, const Case& c) {
    const std::vector<std::byte*>& of = weights_[static_cast<int>(c.format)];
    const std::size_t matrices = c.streams() ? of.size() : 4;
    const double taken = seconds([&] {
      for (std::size_t i = 0; i < matrices; ++i) {
        scratch_.reset();
        const Linear linear{{c.format, kOutputs, kInputs, of[i]}};
        const Product product[] = {{&linear, y_.data()}};
        multiply(one, scratch_, prepare(one, scratch_, x_.data(), c.rows, kInputs, Forms() |= linear), product);
      }
    });
    const double bytes = static_cast<double>(packed_bytes(c.format, kOutputs, kInputs).value());
    const double operations = 2.0 * static_cast<double>(c.rows * kInputs * kOutputs);
    return (c.streams() ? bytes : operations) * static_cast<double>(matrices) / taken / 1e9;
  }

  Arena arena_, scratch_;
  std::vector<std::byte*> weights_[4];
  std::vector<std::uint64_t> memory_;
  std::vector<float> x_, y_;
  std::vector<double> read_, bf16_, int8_;
};

} // namespace
} // namespace tenon::cpu

int main(int argc, char** argv) {
  using namespace tenon::cpu;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  if (rounds < 1) return std::fputs("usage: tenon_kernels_bench [ROUNDS]\n", stderr), 2;
  Bench bench;
  std::vector<Case> cases;
  for (const PackedFormat format :
       {PackedFormat::bf16, PackedFormat::int8g32, PackedFormat::int4g32, PackedFormat::int4g32m})
    for (const std::int64_t rows : {1, 8, 32, 512}) cases.push_back({format, rows});
  for (int i = 0; i < rounds; ++i) bench.round(cases);
  bench.print_machine();
  for (const Case& c : cases)
    std::printf("%-9s %4d rows  %7.1f %s  %.2f of the %s\n", packed_name(c.format), static_cast<int>(c.rows),
                median(c.rate), c.streams() ? "GB/s " : "GOP/s", median(c.fraction),
                c.streams() ? "bandwidth" : "peak");
}

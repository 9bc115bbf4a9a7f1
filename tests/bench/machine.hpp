// What this machine can do at the moment: bandwidth of reads and peaks of bfloat16 and int8 products, measured beside
// every figure of a bench, since a virtual machine's change from minute to minute. Thread: one.
#pragma once

#include "kernels/cpu/engine.hpp"
#include "kernels/cpu/pages.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

namespace tenon::cpu::bench {

template <class Work>
double seconds(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Twelve independent chains of one instruction: no memory, no dependence to wait for.
#define TENON_CHAIN(name, instruction)                                                                          \
  __attribute__((target("avx512f"), noinline)) inline void name(std::int64_t times) {                           \
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
#undef TENON_CHAIN

class Machine {
 public:
  // Reads lie where the weights of a bench do.
  Machine() : memory_(std::size_t{160} << 20) {
    std::fill(memory_.bytes().begin(), memory_.bytes().end(), std::byte{1});
  }

  void measure() {
    read_.push_back(bandwidth());
    bf16_.push_back(peak(bf16_chain, 64));
    int8_.push_back(peak(int8_chain, 128));
  }
  // GB/s and 10^9 operations a second as measured last; 0 where the processor lacks the instruction.
  double read() const { return read_.back(); }
  double bf16() const { return bf16_.back(); }
  double int8() const { return int8_.back(); }

  void print() const {
    std::printf(
        "tier %s, %d threads; reads %.1f GB/s (2 MiB pages where there are such), bf16 %.0f and int8 %.0f GOP/s\n",
        tier_name(engine().kernels->tier), engine().pool->threads(), median(read_), median(bf16_), median(int8_));
  }

 private:
  static double peak(void (*chain)(std::int64_t), double operations) {
    if (!supported(Tier::avx512)) return 0;
    constexpr std::int64_t times = 2000000;
    const int threads = engine().pool->threads();
    const double taken = seconds([&] { engine().pool->run(threads, [&](std::int64_t) { chain(times); }); });
    return operations * 12 * times * threads / taken / 1e9;
  }
  double bandwidth() {
    constexpr std::int64_t parts = 64;
    const auto* from = reinterpret_cast<const std::uint64_t*>(memory_.bytes().data());
    const auto part = static_cast<std::int64_t>(memory_.bytes().size() / sizeof(std::uint64_t)) / parts;
    const double taken = seconds([&] {
      engine().pool->run(parts, [&](std::int64_t p) {
        std::uint64_t lanes[8] = {};
        for (std::int64_t i = p * part; i + 8 <= (p + 1) * part; i += 8)
          for (int lane = 0; lane < 8; ++lane) lanes[lane] += from[i + lane];
        for (const std::uint64_t lane : lanes) sums_[p] += lane;
      });
    });
    return static_cast<double>(memory_.bytes().size()) / taken / 1e9;
  }

  HugeMemory memory_;
  std::uint64_t sums_[64] = {};
  std::vector<double> read_, bf16_, int8_;
};

} // namespace tenon::cpu::bench

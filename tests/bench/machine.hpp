// What this machine can do at the moment: bandwidth of reads, peaks of float32, bfloat16 and int8 products, how many
// instructions of any kind it issues, and how long a cache line takes from one thread to another and back; measured
// around every figure of a bench, since a virtual machine's change from minute to minute. Thread: one.
#pragma once

#include "kernels/cpu/engine.hpp"
#include "kernels/cpu/pages.hpp"
#include "kernels/cpu/probe.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
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

inline Limits mean(const Limits& a, const Limits& b) {
  return {(a.read + b.read) / 2, (a.float32 + b.float32) / 2, (a.bf16 + b.bf16) / 2, (a.int8 + b.int8) / 2};
}

// Nanoseconds in which a cache line goes from one thread to another and back; 0 where there is one processor only.
inline double line_ns() {
  if (std::thread::hardware_concurrency() < 2) return 0;
  constexpr std::uint32_t kTurns = 1000, kTimes = 9;
  alignas(64) std::atomic<std::uint32_t> line{0};
  const auto wait_for = [&](std::uint32_t turn) {
    for (int looks = 0; line.load(std::memory_order_acquire) != turn; ++looks)
      if (looks > 10000) std::this_thread::yield(); // the other may need this processor
  };
  std::jthread other([&] {
    for (std::uint32_t turn = 1; turn < 2 * kTurns * kTimes; turn += 2)
      wait_for(turn), line.store(turn + 1, std::memory_order_release);
  });
  std::vector<double> taken;
  for (std::uint32_t turn = 1, time = 0; time < kTimes; ++time)
    taken.push_back(seconds([&] {
      for (std::uint32_t i = 0; i < kTurns; ++i, turn += 2)
        line.store(turn, std::memory_order_release), wait_for(turn + 1);
    }));
  return 1e9 * median(taken) / kTurns;
}

// 10^9 instructions a second, all threads together, where they do nothing. Threads of other machines on the same cores
// take from it, though they may leave the peaks of products alone.
inline double issued() {
  constexpr std::int64_t kTurns = 500000, kEach = 32;
  Pool& pool = *engine().pool;
  const double taken = seconds([&] {
    pool.run(pool.threads(), [](std::int64_t) {
      for (std::int64_t i = 0; i < kTurns; ++i) asm volatile(".rept 32\n nop\n .endr");
    });
  });
  return static_cast<double>(kTurns * kEach * pool.threads()) / taken / 1e9;
}

class Machine {
 public:
  // The pool's threads come from work, and are awake for what follows.
  void measure() {
    lines_.push_back(line_ns());
    // Not last: what takes a millisecond right after it was two to ten times as slow now and then.
    issued_.push_back(issued()), limits_.push_back(probe_.measure(*engine().pool));
  }
  // GB/s and 10^9 operations a second as measured last; 0 where the processor has no vectors for it.
  double read() const { return limits_.back().read; }
  double bf16() const { return limits_.back().bf16; }
  double int8() const { return limits_.back().int8; }

  // What the machine can do while this is done: the mean of a probe before it and one after.
  template <class Work>
  Limits around(const Work& work) {
    measure();
    const Limits before = limits_.back();
    work();
    measure();
    return mean(before, limits_.back());
  }
  // Likewise around the two sides of a pair; they take turns at being first.
  template <class One, class Other>
  Limits pair(int number, const One& one, const Other& other) {
    return around([&] {
      if (number % 2 == 0) one();
      other();
      if (number % 2 == 1) one();
    });
  }

  // Medians, of what changes most also the lowest and the highest, and what computed.
  void print() const {
    const auto all = [&](double Limits::*of) {
      std::vector<double> values;
      for (const Limits& one : limits_) values.push_back(one.*of);
      return values;
    };
    const std::vector<double> reads = all(&Limits::read);
    const auto [low, high] = std::minmax_element(reads.begin(), reads.end());
    const auto [fewest, most] = std::minmax_element(issued_.begin(), issued_.end());
    std::printf(
        "tier %s, %d threads, g++ %s; reads %.1f GB/s (%.1f to %.1f; 2 MiB pages where there are such), float32 %.0f, "
        "bf16 %.0f and int8 %.0f GOP/s; %.0f G instructions/s (%.0f to %.0f), a line there and back %.0f ns\n",
        tier_name(engine().kernels->tier), engine().pool->threads(), __VERSION__, median(reads), *low, *high,
        median(all(&Limits::float32)), median(all(&Limits::bf16)), median(all(&Limits::int8)), median(issued_), *fewest,
        *most, median(lines_));
  }

 private:
  Probe probe_;
  std::vector<Limits> limits_;
  std::vector<double> lines_, issued_;
};

} // namespace tenon::cpu::bench

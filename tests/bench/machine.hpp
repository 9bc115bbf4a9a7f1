// What this machine can do at the moment: bandwidth of reads and peaks of bfloat16 and int8 products, measured beside
// every figure of a bench, since a virtual machine's change from minute to minute. Thread: one.
#pragma once

#include "kernels/cpu/engine.hpp"
#include "kernels/cpu/pages.hpp"
#include "kernels/cpu/probe.hpp"

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

class Machine {
 public:
  void measure() { limits_.push_back(probe_.measure(*engine().pool)); }
  // GB/s and 10^9 operations a second as measured last; 0 where the processor lacks the instruction.
  double read() const { return limits_.back().read; }
  double bf16() const { return limits_.back().bf16; }
  double int8() const { return limits_.back().int8; }

  void print() const {
    const auto middle = [&](double Limits::*of) {
      std::vector<double> values;
      for (const Limits& one : limits_) values.push_back(one.*of);
      return median(values);
    };
    std::printf(
        "tier %s, %d threads; reads %.1f GB/s (2 MiB pages where there are such), bf16 %.0f and int8 %.0f GOP/s\n",
        tier_name(engine().kernels->tier), engine().pool->threads(), middle(&Limits::read), middle(&Limits::bf16),
        middle(&Limits::int8));
  }

 private:
  Probe probe_;
  std::vector<Limits> limits_;
};

} // namespace tenon::cpu::bench

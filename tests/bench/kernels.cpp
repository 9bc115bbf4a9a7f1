// How near our products come to what this processor can do: every round takes every format and number of rows, each
// between two probes of the machine (bandwidth of reads, peaks of bfloat16 and int8 products); medians of the rounds'
// ratios are printed.
// Never a test: the figures are the machine's as much as ours.
//
//   tenon_kernels_bench [ROUNDS]     TENON_TIER and TENON_THREADS choose tier and threads
#include "kernels/cpu/product.hpp"
#include "tests/bench/machine.hpp"

#include <cstdlib>
#include <utility>

namespace tenon::cpu {
namespace {

using namespace bench;

constexpr std::int64_t kInputs = 1536, kOutputs = 1536;
constexpr std::int64_t kStreamBytes = 160 << 20; // of weights walked through: several times the last cache

struct Case {
  PackedFormat format;
  std::int64_t rows;
  std::vector<double> rate = {}, fraction = {};
  bool streams() const { return rows <= 8; }
};

class Bench {
 public:
  Bench() : memory_(4 * (kStreamBytes + (std::size_t{8} << 20))) {
    std::byte* next = memory_.bytes().data();
    std::vector<float> w(kInputs * kOutputs);
    for (std::size_t i = 0; i < w.size(); ++i)
      w[i] = static_cast<float>((i * 2654435761u >> 8) % 2001) / 1000.0f - 1.0f;
    for (std::vector<std::byte*>& of : weights_) {
      const auto format = static_cast<PackedFormat>(&of - weights_);
      const auto bytes = packed_bytes(format, kOutputs, kInputs).value();
      for (std::int64_t i = 0; i < kStreamBytes / static_cast<std::int64_t>(bytes); ++i) {
        of.push_back(std::exchange(next, next + bytes));
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
    for (Case& c : cases) {
      const Limits machine = machine_.around([&] { c.rate.push_back(measure(engine(), c)); });
      const double limit = c.streams() ? machine.read : machine.peak(c.format);
      c.fraction.push_back(limit > 0 ? c.rate.back() / limit : 0);
    }
  }

  const Machine& machine() const { return machine_; }

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

  Machine machine_;
  HugeMemory memory_;
  Arena scratch_;
  std::vector<std::byte*> weights_[4];
  std::vector<float> x_, y_;
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
  bench.machine().print();
  for (const Case& c : cases) {
    std::printf("%-9s %4d rows  %7.1f %s", packed_name(c.format), static_cast<int>(c.rows), median(c.rate),
                c.streams() ? "GB/s " : "GOP/s");
    if (median(c.fraction) > 0) std::printf("  %.2f of the %s", median(c.fraction), c.streams() ? "bandwidth" : "peak");
    std::printf("\n");
  }
}

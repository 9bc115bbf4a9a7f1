// What choosing costs for one row: scores of all experts (a product with their rows in bf16, C=576), then strengths by
// every rule, in microseconds, for few and for thousands of experts; and how many times as long as top-2 each rule
// takes. Scores are normal with deviation 1.5. Never a test.
//
//   tenon_routing_bench [ROUNDS]     TENON_TIER and TENON_THREADS choose tier and threads
#include "kernels/cpu/routing.hpp"

#include "kernels/cpu/product.hpp"
#include "tests/bench/machine.hpp"

#include <functional>
#include <random>

namespace tenon::cpu::bench {
namespace {

constexpr std::int64_t kWidth = 576, kRows = 64;

class Bench {
 public:
  explicit Bench(std::int64_t experts)
      : experts_(experts),
        memory_(packed_bytes(PackedFormat::bf16, experts, kWidth).value()),
        scores_(kRows * experts),
        out_(experts),
        shares_(experts),
        places_(experts) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0.0f, 1.5f);
    for (float& score : scores_) score = normal(random);
  }

  void run(int rounds) {
    const Kernels& kernels = *engine().kernels;
    const Linear rows{{PackedFormat::bf16, experts_, kWidth, memory_.bytes().data()}};
    const auto rule = [&](auto choose) {
      return time(rounds, [&](std::int64_t r) { choose(kernels, scores_.data() + r * experts_); });
    };
    const double scores = time(rounds, [&](std::int64_t) {
      arena_.reset();
      const Product product[] = {{&rows, out_.data()}};
      multiply(engine(), arena_, prepare(engine(), arena_, x_.data(), 1, kWidth, Forms() |= rows), product);
    });
    const double top_2 =
                     rule([&](auto&k, const float*s) { top_k(k, s, experts_, 2, 1, places_.data(), shares_.data()); }),
                 top_8 =
                     rule([&](auto&k, const float*s) { top_k(k, s, experts_, 8, 1, places_.data(), shares_.data()); }),
                 sparse =
                     rule([&](auto&k, const float*s) { sparsemax(k, s, experts_, 1, places_.data(), shares_.data()); }),
                 entmax =
                     rule([&](auto&k, const float*s) { entmax15(k, s, experts_, 1, places_.data(), shares_.data()); });
    std::printf(
        "%6d experts  scores %8.2f us  top-2 %6.3f us  top-8 %6.3f (%.2f)  sparsemax %6.3f (%.2f)  "
        "1.5-entmax %6.3f (%.2f)\n",
        static_cast<int>(experts_), scores, top_2, top_8, top_8 / top_2, sparse, sparse / top_2, entmax,
        entmax / top_2);
  }

 private:
  // Microseconds a row, the median of the rounds.
  static double time(int rounds, const std::function<void(std::int64_t)>& row) {
    std::vector<double> taken;
    for (int i = 0; i < rounds; ++i)
      taken.push_back(seconds([&] {
        for (std::int64_t r = 0; r < kRows; ++r) row(r);
      }));
    return median(taken) / kRows * 1e6;
  }

  std::int64_t experts_;
  HugeMemory memory_;
  Arena arena_;
  std::vector<float> scores_, out_, shares_, x_ = std::vector<float>(kWidth, 0.5f);
  std::vector<std::int32_t> places_;
};

} // namespace
} // namespace tenon::cpu::bench

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 21;
  if (rounds < 1) return std::fputs("usage: tenon_routing_bench [ROUNDS]\n", stderr), 2;
  for (const std::int64_t experts : {32, 1024, 10000}) tenon::cpu::bench::Bench(experts).run(rounds);
}

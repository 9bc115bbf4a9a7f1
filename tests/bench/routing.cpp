// What choosing costs for one row, in microseconds, for few and for thousands of experts: strengths by every rule, and
// how many times as long as top-2 each takes (scores are normal with deviation 1.5); and a token's whole routing in the
// host, scores included (C=576), by each policy. Never a test.
//
//   tenon_routing_bench [ROUNDS]     TENON_TIER and TENON_THREADS choose tier and threads
#include "kernels/cpu/routing.hpp"

#include "host/routing/router.hpp"
#include "tests/bench/machine.hpp"

#include <ATen/ATen.h>

#include <cstring>
#include <functional>
#include <random>

namespace tenon::cpu::bench {
namespace {

constexpr std::int64_t kWidth = 576, kRows = 64;
constexpr int kWarm = 20; // tokens until as many scores are averaged as will be

// Microseconds a row, the median of the rounds.
double rule_us(int rounds, const std::function<void(std::int64_t)>& row) {
  std::vector<double> taken;
  for (int i = 0; i < rounds; ++i)
    taken.push_back(seconds([&] {
      for (std::int64_t r = 0; r < kRows; ++r) row(r);
    }));
  return median(taken) / kRows * 1e6;
}

void rules(std::int64_t experts, int rounds) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 1.5f);
  std::vector<float> scores(static_cast<std::size_t>(kRows * experts)), shares(static_cast<std::size_t>(experts));
  std::vector<std::int32_t> places(static_cast<std::size_t>(experts));
  for (float& score : scores) score = normal(random);
  const auto rule = [&](auto choose) {
    return rule_us(rounds, [&](std::int64_t r) {
      choose(*engine().kernels, scores.data() + r * experts, places.data(), shares.data());
    });
  };
  const double top_2 = rule([&](auto&k, const float*s, auto*at, float*to) { top_k(k, s, experts, 2, 1, at, to); }),
               top_8 = rule([&](auto&k, const float*s, auto*at, float*to) { top_k(k, s, experts, 8, 1, at, to); }),
               sparse = rule([&](auto&k, const float*s, auto*at, float*to) { sparsemax(k, s, experts, 1, at, to); }),
               entmax = rule([&](auto&k, const float*s, auto*at, float*to) { entmax15(k, s, experts, 1, at, to); });
  std::printf("%6d experts  top-2 %6.3f us  top-8 %6.3f (%.2f)  sparsemax %6.3f (%.2f)  1.5-entmax %6.3f (%.2f)\n",
              static_cast<int>(experts), top_2, top_8, top_8 / top_2, sparse, sparse / top_2, entmax, entmax / top_2);
}

// A token after another, each after every thread has read what pushes the router out of its caches, as a trunk does.
void tokens(std::int64_t experts, int rounds) {
  const Normalization plain{at::zeros({kWidth}), at::ones({kWidth})};
  std::vector<Row> rows;
  for (std::int64_t i = 1; i < experts; ++i) rows.push_back({at::randn({kWidth}) * 0.05, 0.0});
  const HugeMemory others(std::size_t{128} << 20);
  std::memset(others.bytes().data(), 1, others.bytes().size()); // or all of it is one page of zeros
  std::printf("%6d experts, a token:", static_cast<int>(experts));
  for (const Routing& routing : {Routing{"top_k", 2, 1.0, "token"}, Routing{"top_k", 2, 1.0, "token", 0, 0, 16},
                                 Routing{"top_k", 2, 1.0, "sticky", 2, 0, 16}}) {
    const Router router(plain, rows, routing, 0.0);
    Sequence sequence;
    std::vector<double> taken;
    for (int i = 0; i < rounds + kWarm; ++i) {
      const at::Tensor h_1C = at::randn({1, kWidth});
      const Batch batch{{}, {{0, 1, i, &sequence}}};
      sequence.h.append(h_1C);
      engine().pool->run(engine().pool->threads(), [&](std::int64_t) {
        read_all(others.bytes().data(), static_cast<std::int64_t>(others.bytes().size()));
      });
      const double once = seconds([&] { (void)router.strengths(h_1C, batch); });
      if (i >= kWarm) taken.push_back(1e6 * once);
    }
    std::printf("  %s%s %.1f us", routing.policy.c_str(), routing.average_over > 1 ? " over 16" : "", median(taken));
  }
  std::printf("\n");
}

} // namespace
} // namespace tenon::cpu::bench

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 21;
  if (rounds < 1) return std::fputs("usage: tenon_routing_bench [ROUNDS]\n", stderr), 2;
  using namespace tenon::cpu;
  for (const std::int64_t experts : {32, 1024, 10000}) bench::rules(experts, rounds), bench::tokens(experts, rounds);
}

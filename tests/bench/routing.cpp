// What choosing costs for one row, in microseconds, for few and for thousands of experts: strengths by every rule, and
// how many times as long as top-2 each takes (scores are normal with deviation 1.5); and a token's whole routing in the
// host, scores included (C=576), by each policy. Every round has all of a kind in turn, between two probes of the
// machine; medians. Never a test.
//
//   tenon_routing_bench [ROUNDS]     TENON_TIER and TENON_THREADS choose tier and threads
#include "kernels/cpu/routing.hpp"

#include "host/routing/router.hpp"
#include "tests/bench/machine.hpp"

#include <ATen/ATen.h>

#include <cstring>
#include <deque>
#include <random>

namespace tenon::cpu::bench {
namespace {

constexpr std::int64_t kWidth = 576, kRows = 64;
constexpr int kWarm = 20; // tokens until as many scores are averaged as will be

// Microseconds of all that stands side by side, round by round.
class Series {
 public:
  explicit Series(std::vector<const char*> names) : names_(std::move(names)), taken_(names_.size()) {}
  void add(std::size_t which, double us) { taken_[which].push_back(us); }
  // Medians, and those of how many times as long as the first's each takes.
  void print() const {
    for (std::size_t i = 0; i < names_.size(); ++i) {
      std::vector<double> times;
      for (std::size_t r = 0; r < taken_[i].size(); ++r) times.push_back(taken_[i][r] / taken_[0][r]);
      std::printf("  %s %.3f us (%.2f)", names_[i], median(taken_[i]), median(times));
    }
    std::printf("\n");
  }

 private:
  std::vector<const char*> names_;
  std::vector<std::vector<double>> taken_;
};

void rules(Machine& machine, std::int64_t experts, int rounds) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 1.5f);
  std::vector<float> scores(static_cast<std::size_t>(kRows * experts)), shares(static_cast<std::size_t>(experts));
  std::vector<std::int32_t> places(static_cast<std::size_t>(experts));
  for (float& score : scores) score = normal(random);
  Series series({"top-2", "top-8", "sparsemax", "1.5-entmax"});
  const auto rule = [&](std::size_t which, auto choose) {
    const auto all = [&] {
      for (std::int64_t r = 0; r < kRows; ++r)
        choose(*engine().kernels, scores.data() + r * experts, places.data(), shares.data());
    };
    all(); // scores come from a cache, as whoever computed them leaves them
    series.add(which, 1e6 * seconds(all) / kRows);
  };
  for (int round = 0; round < rounds; ++round)
    machine.around([&] {
      rule(0, [&](auto& k, const float* s, auto* at, float* to) { top_k(k, s, experts, 2, 1, at, to); });
      rule(1, [&](auto& k, const float* s, auto* at, float* to) { top_k(k, s, experts, 8, 1, at, to); });
      rule(2, [&](auto& k, const float* s, auto* at, float* to) { sparsemax(k, s, experts, 1, at, to); });
      rule(3, [&](auto& k, const float* s, auto* at, float* to) { entmax15(k, s, experts, 1, at, to); });
    });
  std::printf("%6d experts, a row: ", static_cast<int>(experts));
  series.print();
}

// A text's way through a router, token by token.
struct Walk {
  explicit Walk(Router router) : router(std::move(router)) {}

  // Microseconds of one, after every thread has read what pushes the router out of its caches, as a trunk does.
  double token(std::int64_t position, const HugeMemory& others) {
    const at::Tensor h_1C = at::randn({1, kWidth});
    const Batch batch{{}, {{0, 1, position, &sequence}}};
    sequence.h.append(h_1C);
    engine().pool->run(engine().pool->threads(), [&](std::int64_t) {
      read_all(others.bytes().data(), static_cast<std::int64_t>(others.bytes().size()));
    });
    return 1e6 * seconds([&] { (void)router.strengths(h_1C, batch); });
  }

  Router router;
  Sequence sequence;
};

void tokens(Machine& machine, std::int64_t experts, int rounds) {
  const Normalization plain{at::zeros({kWidth}), at::ones({kWidth})};
  std::vector<Row> rows;
  for (std::int64_t i = 1; i < experts; ++i) rows.push_back({at::randn({kWidth}) * 0.05, 0.0});
  const HugeMemory others(std::size_t{128} << 20);
  std::memset(others.bytes().data(), 1, others.bytes().size()); // or all of it is one page of zeros
  std::deque<Walk> walks;
  for (const Routing& routing : {Routing{"top_k", 2, 1.0, "token"}, Routing{"top_k", 2, 1.0, "token", 0, 0, 16},
                                 Routing{"top_k", 2, 1.0, "sticky", 2, 0, 16}})
    walks.emplace_back(Router(plain, rows, routing, 0.0));
  Series series({"token", "token over 16", "sticky over 16"});
  for (int i = 0; i < kWarm; ++i)
    for (Walk& walk : walks) walk.token(i, others);
  for (int round = 0; round < rounds; ++round)
    machine.around([&] {
      for (std::size_t w = 0; w < walks.size(); ++w) series.add(w, walks[w].token(kWarm + round, others));
    });
  std::printf("%6d experts, a token:", static_cast<int>(experts));
  series.print();
}

} // namespace
} // namespace tenon::cpu::bench

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 21;
  if (rounds < 1) return std::fputs("usage: tenon_routing_bench [ROUNDS]\n", stderr), 2;
  using namespace tenon::cpu;
  bench::Machine machine;
  for (const std::int64_t experts : {32, 1024, 10000})
    bench::rules(machine, experts, rounds), bench::tokens(machine, experts, rounds);
  machine.print();
}

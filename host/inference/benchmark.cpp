#include "host/inference/benchmark.hpp"

#include "kernels/cpu/engine.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace tenon {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

cpu::Limits mean(const cpu::Limits& a, const cpu::Limits& b) {
  return {(a.read + b.read) / 2, (a.float32 + b.float32) / 2, (a.bf16 + b.bf16) / 2, (a.int8 + b.int8) / 2};
}

class Bench {
 public:
  Bench(Composition& composition, std::span<const std::int32_t> text, const BenchmarkOptions& options)
      : composition_(composition), text_(text), options_(options), pool_(*cpu::engine().pool) {}

  Benchmark run() {
    Benchmark out;
    cpu::Pool alone(1);
    out.one_thread = probe_.measure(alone), out.all_threads = probe_.measure(pool_), out.threads = pool_.threads();
    for (const std::int64_t length : options_.prompts) out.phases.push_back({true, length, {}});
    for (const std::int64_t length : options_.contexts) out.phases.push_back({false, length, {}});
    const auto total = static_cast<std::int64_t>(out.phases.size()) * (options_.rounds + 1);
    std::int64_t done = 0;
    for (std::int64_t round = 0; round <= options_.rounds; ++round) // the first warms up
      for (BenchmarkPhase& phase : out.phases) {
        if (options_.interrupted && options_.interrupted())
          throw Error(Code::interrupted, "bench", "stopped; nothing was written");
        const BenchmarkRun measured = phase.prompt ? prompt(phase.tokens) : steps(phase.tokens);
        if (round > 0) phase.runs.push_back(measured);
        if (options_.progress) options_.progress(++done, total);
      }
    return out;
  }

 private:
  // count tokens of the text from `first` on.
  std::vector<std::int32_t> tokens(std::int64_t first, std::int64_t count) const {
    std::vector<std::int32_t> out;
    for (std::int64_t i = first; i < first + count; ++i)
      out.push_back(text_[static_cast<std::size_t>(i) % text_.size()]);
    return out;
  }

  // What was spent of each slot since `before`, in rows per token.
  std::vector<double> shares(const std::vector<Work>& before, std::int64_t count) const {
    std::vector<double> out;
    for (std::size_t slot = 0; slot < before.size(); ++slot)
      out.push_back(static_cast<double>(composition_.experts().work[slot].run_rows - before[slot].run_rows) /
                    static_cast<double>(count));
    return out;
  }

  static double skipped(const std::vector<double>& shares) {
    double run = 0;
    for (const double share : shares) run += share;
    return 1.0 - run / static_cast<double>(shares.size());
  }

  Cost experts_cost(const std::vector<double>& shares) const {
    Cost sum;
    for (std::size_t slot = 0; slot < shares.size(); ++slot)
      sum += expert_cost(*composition_.packages()[slot].expert).times(shares[slot]);
    return sum;
  }

  Cost positions_cost(const std::vector<double>& shares) const {
    Cost sum = seen_cost(composition_.model());
    for (std::size_t slot = 0; slot < shares.size(); ++slot)
      sum += seen_cost(*composition_.packages()[slot].expert).times(shares[slot]);
    return sum;
  }

  BenchmarkRun prompt(std::int64_t length) {
    Session session(composition_);
    session.append(tokens(0, length));
    const std::vector<Work> before = composition_.experts().work;
    const cpu::Limits first = probe_.measure(pool_);
    const auto start = std::chrono::steady_clock::now();
    session.logits();
    const double taken = seconds_since(start);
    BenchmarkRun out{static_cast<double>(length) / taken, 0, 0, 0, mean(first, probe_.measure(pool_))};
    const std::vector<double> ran = shares(before, length);
    out.skipped = skipped(ran);
    Cost cost = layers_cost(composition_.model());
    cost += experts_cost(ran);
    cost += unembedding_cost(composition_.model()).times(1.0 / static_cast<double>(length));
    cost += positions_cost(ran).times(static_cast<double>(length + 1) / 2); // that a row sees, on the average
    const double least = cost.computing(out.machine);
    out.limit = least > 0 ? 1.0 / least : 0;
    return out;
  }

  BenchmarkRun steps(std::int64_t context) {
    Session session(composition_);
    session.append(tokens(0, std::max<std::int64_t>(context, 1)));
    session.logits();
    const std::vector<std::int32_t> next = tokens(context + 1, options_.steps);
    const std::vector<Work> before = composition_.experts().work;
    std::vector<double> each;
    const cpu::Limits first = probe_.measure(pool_);
    for (const std::int32_t token : next) {
      const auto start = std::chrono::steady_clock::now();
      session.append({&token, 1});
      session.logits();
      each.push_back(seconds_since(start));
    }
    double taken = 0;
    for (const double one : each) taken += one;
    BenchmarkRun out{static_cast<double>(options_.steps) / taken, 0, 0, 0, mean(first, probe_.measure(pool_))};
    std::sort(each.begin(), each.end());
    out.longest = each[(each.size() - 1) * 99 / 100];
    const std::vector<double> ran = shares(before, options_.steps);
    out.skipped = skipped(ran);
    out.limit = step_limit(ran, static_cast<double>(context) + static_cast<double>(options_.steps) / 2, out.machine);
    return out;
  }

  double step_limit(const std::vector<double>& ran, double positions, const cpu::Limits& machine) const {
    Cost cost = layers_cost(composition_.model());
    cost += unembedding_cost(composition_.model());
    cost += experts_cost(ran);
    cost += positions_cost(ran).times(positions);
    return cost.bytes > 0 ? 1.0 / cost.reading(machine) : 0;
  }

  Composition& composition_;
  std::span<const std::int32_t> text_;
  const BenchmarkOptions& options_;
  cpu::Pool& pool_;
  cpu::Probe probe_;
};

} // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Benchmark benchmark(Composition& composition, std::span<const std::int32_t> text, const BenchmarkOptions& options) {
  if (text.empty()) throw Error(Code::usage, "bench", "found no text to read", "give --text FILE");
  const std::int64_t context = context_of(composition.model());
  for (const std::int64_t length : options.prompts)
    if (length > context)
      throw Error(Code::usage, "bench",
                  fmt::format("found a prompt of {} tokens, the context holds {}", length, context));
  for (const std::int64_t length : options.contexts)
    if (length + options.steps + 1 > context)
      throw Error(Code::usage, "bench",
                  fmt::format("found {} steps after {} tokens, the context holds {}", options.steps, length, context));
  return Bench(composition, text, options).run();
}

} // namespace tenon

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

BenchmarkMachine mean(const BenchmarkMachine& a, const BenchmarkMachine& b) {
  return {mean(a.one_thread, b.one_thread), mean(a.all_threads, b.all_threads)};
}

constexpr std::int64_t kMost = 100'000'000; // tokens of all rounds of a phase: days of work

[[noreturn]] void refuse(const std::string& message, const std::string& remedy) {
  throw Error(Code::usage, "bench", message, remedy);
}

// Numbers are compared without being added: their sum may be none.
void check(const BenchmarkOptions& options, std::int64_t context) {
  const auto check_rounds = [&](std::int64_t tokens) {
    if (options.rounds > kMost / std::max<std::int64_t>(tokens, 1) - 1)
      refuse(fmt::format("found {} rounds of {} tokens, need at most {} tokens in all", options.rounds, tokens, kMost),
             "give fewer --rounds, fewer --steps or shorter texts");
  };
  for (const std::int64_t length : options.prompts) {
    if (length > context)
      refuse(fmt::format("found a prompt of {} tokens, the context holds {}", length, context),
             fmt::format("give --prompts of {} or less", context));
    check_rounds(length);
  }
  for (const std::int64_t length : options.contexts) {
    if (length >= context || options.steps >= context - length)
      refuse(fmt::format("found {} steps after {} tokens, the context holds {}", options.steps, length, context),
             "give fewer --steps, or shorter --contexts");
    check_rounds(length + options.steps);
  }
}

class Bench {
 public:
  Bench(Composition& composition, std::span<const std::int32_t> text, const BenchmarkOptions& options)
      : composition_(composition), text_(text), options_(options), pool_(*cpu::engine().pool) {}

  Benchmark run() {
    Benchmark out;
    out.machine = before(), out.threads = pool_.threads();
    for (const std::int64_t length : options_.prompts) out.phases.push_back({true, length, {}});
    for (const std::int64_t length : options_.contexts) out.phases.push_back({false, length, {}});
    for (const BenchmarkPhase& phase : out.phases)
      total_ += (options_.rounds + 1) * (phase.prompt ? phase.tokens : begun(phase.tokens) + options_.steps);
    for (std::int64_t round = 0; round <= options_.rounds; ++round) // the first warms up
      for (BenchmarkPhase& phase : out.phases) {
        stop_if_asked();
        const BenchmarkRun measured = phase.prompt ? prompt(phase.tokens) : steps(phase.tokens);
        if (round > 0) phase.runs.push_back(measured);
      }
    return out;
  }

 private:
  // All threads last, and first: their probes stand next to what is measured.
  BenchmarkMachine before() {
    const cpu::Limits one_thread = probe_.measure(alone_);
    return {one_thread, probe_.measure(pool_)};
  }
  BenchmarkMachine after() {
    const cpu::Limits all_threads = probe_.measure(pool_);
    return {probe_.measure(alone_), all_threads};
  }

  // Tokens before steps: there is always one to continue.
  static std::int64_t begun(std::int64_t context) { return std::max<std::int64_t>(context, 1); }

  void stop_if_asked() const {
    if (options_.interrupted && options_.interrupted())
      throw Error(Code::interrupted, "bench", "stopped; nothing was written");
  }

  void tell(std::int64_t more) const {
    if (options_.progress) options_.progress(done_ + more, total_);
  }
  void finish(std::int64_t more) {
    tell(more);
    done_ += more;
  }

  Session session() const {
    SessionOptions options;
    options.interrupted = options_.interrupted;
    options.progress = [this](std::int64_t done, std::int64_t) { tell(done); };
    return Session(composition_, std::move(options));
  }

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
    Session text = session();
    text.append(tokens(0, length));
    const std::vector<Work> work = composition_.experts().work;
    const BenchmarkMachine first = before();
    const auto start = std::chrono::steady_clock::now();
    text.logits();
    const double taken = seconds_since(start);
    BenchmarkRun out{static_cast<double>(length) / taken, 0, 0, 0, mean(first, after())};
    finish(length);
    const std::vector<double> ran = shares(work, length);
    out.skipped = skipped(ran);
    Cost cost = layers_cost(composition_.model());
    cost += experts_cost(ran);
    cost += unembedding_cost(composition_.model()).times(1.0 / static_cast<double>(length));
    cost += positions_cost(ran).times(static_cast<double>(length + 1) / 2); // that a row sees, on the average
    const double least = cost.computing(out.machine.all_threads);
    out.limit = least > 0 ? 1.0 / least : 0;
    return out;
  }

  BenchmarkRun steps(std::int64_t context) {
    Session text = session();
    text.append(tokens(0, begun(context)));
    text.logits();
    finish(begun(context));
    const std::vector<Work> work = composition_.experts().work;
    const BenchmarkMachine first = before();
    std::vector<double> each = write(text, tokens(begun(context), options_.steps));
    double taken = 0;
    for (const double one : each) taken += one;
    BenchmarkRun out{static_cast<double>(options_.steps) / taken, 0, 0, 0, mean(first, after())};
    done_ += options_.steps;
    std::sort(each.begin(), each.end());
    out.longest = each[(each.size() - 1) * 99 / 100];
    const std::vector<double> ran = shares(work, options_.steps);
    out.skipped = skipped(ran);
    out.limit = step_limit(ran, static_cast<double>(context) + static_cast<double>(options_.steps) / 2,
                           out.machine.all_threads);
    return out;
  }

  // Seconds of each step; what is asked and told between them does not count.
  std::vector<double> write(Session& text, const std::vector<std::int32_t>& next) const {
    std::vector<double> each;
    for (const std::int32_t token : next) {
      stop_if_asked();
      const auto start = std::chrono::steady_clock::now();
      text.append({&token, 1});
      text.logits();
      each.push_back(seconds_since(start));
      tell(static_cast<std::int64_t>(each.size()));
    }
    return each;
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
  cpu::Pool alone_{1};
  cpu::Probe probe_;
  std::int64_t done_ = 0, total_ = 0; // tokens
};

} // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Benchmark benchmark(Composition& composition, std::span<const std::int32_t> text, const BenchmarkOptions& options) {
  if (text.empty()) throw Error(Code::usage, "bench", "found no text to read", "give --text FILE");
  check(options, context_of(composition.model()));
  return Bench(composition, text, options).run();
}

} // namespace tenon

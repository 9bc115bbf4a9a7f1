// tenon bench: how fast a composition reads and writes here, beside what this machine can do.
#include "host/cli/numbers.hpp"
#include "host/cli/opening.hpp"
#include "host/cli/progress.hpp"
#include "host/inference/benchmark.hpp"
#include "kernels/cpu/engine.hpp"
#include "kernels/cpu/pages.hpp"
#include "registry/base/files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace tenon {
namespace {

struct Settings {
  OpeningSettings opening;
  BenchmarkOptions options;
  std::string text;
};

std::vector<std::int32_t> text_of(const Settings& settings, const Model& model) {
  if (!settings.text.empty()) return model.tokenizer().encode(read_file(settings.text));
  const Shard general = model.calibration();
  const auto tokens = general.tokens();
  return {tokens.begin(), tokens.end()};
}

double middle(const BenchmarkPhase& phase, double (*of)(const BenchmarkRun&)) {
  std::vector<double> values;
  for (const BenchmarkRun& run : phase.runs) values.push_back(of(run));
  return median(values);
}
double rate(const BenchmarkRun& run) { return run.rate; }
double limit(const BenchmarkRun& run) { return run.limit; }
double reached(const BenchmarkRun& run) { return run.limit > 0 ? run.rate / run.limit : 0; }
double longest(const BenchmarkRun& run) { return run.longest; }
double skipped(const BenchmarkRun& run) { return run.skipped; }

json::object to_json(const cpu::Limits& limits) {
  return {{"read_gb_per_second", limits.read},
          {"float32_gop_per_second", limits.float32},
          {"bf16_gop_per_second", limits.bf16},
          {"int8_gop_per_second", limits.int8}};
}

json::object to_json(const BenchmarkMachine& machine) {
  return {{"one_thread", to_json(machine.one_thread)}, {"all_threads", to_json(machine.all_threads)}};
}

json::object to_json(const BenchmarkPhase& phase) {
  json::array runs;
  for (const BenchmarkRun& run : phase.runs)
    runs.push_back(json::object{{"tokens_per_second", run.rate},
                                {"limit_tokens_per_second", run.limit},
                                {"longest_step_seconds", run.longest},
                                {"work_skipped", run.skipped},
                                {"machine", to_json(run.machine)}});
  return {{"phase", phase.name()},
          {phase.prompt ? "prompt_tokens" : "context_tokens", phase.tokens},
          {"tokens_per_second", middle(phase, rate)},
          {"limit_tokens_per_second", middle(phase, limit)},
          {"reached", middle(phase, reached)},
          {"runs", runs}};
}

std::string known(double value, const char* pattern) {
  return value > 0 ? fmt::format(fmt::runtime(pattern), value) : "not known";
}

// Without headers and blank lines a row needs its table's name.
void show(Table table, const char* name, Context& context) {
  if (context.flags.plain)
    for (auto& row : table.rows) row.insert(row.begin(), name);
  context.out.table(table);
}

Table machine_table(const Benchmark& made) {
  Table table{{"threads", "reads GB/s", "float32 GOP/s", "bf16 GOP/s", "int8 GOP/s"}, {}, {0, 1, 2, 3, 4}};
  const auto add = [&](int threads, const cpu::Limits& limits) {
    table.rows.push_back({std::to_string(threads), fmt::format("{:.1f}", limits.read), known(limits.float32, "{:.0f}"),
                          known(limits.bf16, "{:.0f}"), known(limits.int8, "{:.0f}")});
  };
  add(1, made.machine.one_thread);
  if (made.threads > 1) add(made.threads, made.machine.all_threads);
  return table;
}

Table phase_table(const Benchmark& made) {
  Table table{
      {"phase", "tokens/s", "lowest", "highest", "limit", "reached", "of", "99% of steps within", "work skipped"},
      {},
      {1, 2, 3, 4, 5, 7, 8}};
  for (const BenchmarkPhase& phase : made.phases) {
    const auto by_rate = [](const BenchmarkRun& a, const BenchmarkRun& b) { return a.rate < b.rate; };
    const auto [low, high] = std::minmax_element(phase.runs.begin(), phase.runs.end(), by_rate);
    table.rows.push_back(
        {phase.prompt ? fmt::format("prompt of {}", phase.tokens) : fmt::format("steps after {}", phase.tokens),
         fmt::format("{:.1f}", middle(phase, rate)), fmt::format("{:.1f}", low->rate),
         fmt::format("{:.1f}", high->rate), known(middle(phase, limit), "{:.0f}"),
         known(middle(phase, reached), "{:.2f}"), phase.prompt ? "products" : "reads",
         phase.prompt ? "" : fmt::format("{:.1f} ms", 1e3 * middle(phase, longest)),
         fmt::format("{:.0f}%", 100 * middle(phase, skipped))});
  }
  return table;
}

// What the composition runs on here.
struct Ground {
  bool own;         // stored as float32, products are LibTorch's
  const char* tier; // of our own
  int threads;      // that products run on
  cpu::Pages pages;
  std::uint64_t bytes, huge; // packed, and of those in huge pages
  const char* keys;
};

// Beside packed formats LibTorch has one thread.
Ground ground_of(const Composition& composition, int threads) {
  const PackedWeights* packed = composition.model().weights().packed();
  return {packed && packed->bytes() > 0,
          cpu::tier_name(cpu::engine().kernels->tier),
          packed && packed->bytes() == 0 ? 1 : threads,
          packed && packed->copied() ? cpu::Pages::huge : cpu::Pages::mapped,
          packed ? packed->bytes() : 0,
          packed ? packed->in_huge_pages() : 0,
          composition.key_format()};
}

json::object to_json(const Settings& settings, const Benchmark& made, const Ground& ground) {
  json::array phases;
  for (const BenchmarkPhase& phase : made.phases) phases.push_back(to_json(phase));
  return {{"name", settings.opening.name},
          {"tier", ground.own ? ground.tier : "libtorch"},
          {"threads", ground.threads},
          {"pages", cpu::pages_name(ground.pages)},
          {"bytes_in_huge_pages", ground.huge},
          {"keys", ground.keys},
          {"rounds", settings.options.rounds},
          {"machine", to_json(made.machine)},
          {"phases", phases}};
}

std::string summary(const Settings& settings, const Ground& ground) {
  const std::int64_t rounds = settings.options.rounds;
  return fmt::format(
      "{}; products by {} on {} thread{}, keys and values in {}, weights {}; each limit from the machine beside it",
      rounds == 1 ? "one round" : fmt::format("medians of {} rounds", rounds),
      ground.own ? ground.tier : "LibTorch in float32", ground.threads, ground.threads == 1 ? "" : "s", ground.keys,
      ground.pages == cpu::Pages::huge
          ? fmt::format("copied, {:.0f} of {:.0f} MB in 2 MiB pages", static_cast<double>(ground.huge) / 1e6,
                        static_cast<double>(ground.bytes) / 1e6)
          : "mapped from their file");
}

void bench(const Settings& settings, Context& context) {
  const auto composition = open_composition(settings.opening, context);
  const std::vector<std::int32_t> text = text_of(settings, composition->model());
  BenchmarkOptions options = settings.options;
  std::optional<Progress> bar;
  options.interrupted = [] { return interrupted(); };
  options.progress = [&](std::int64_t done, std::int64_t total) {
    if (!bar) bar.emplace(context.out, "measuring", total, "tokens");
    bar->update(done);
  };
  const Benchmark made = benchmark(*composition, text, options);
  bar.reset();
  const Ground ground = ground_of(*composition, made.threads);
  if (context.flags.json) return context.out.json(to_json(settings, made, ground));
  show(machine_table(made), "machine", context);
  if (!context.flags.plain) context.out.line("");
  show(phase_table(made), "phase", context);
  context.out.note(summary(settings, ground));
}

} // namespace

void add_bench(CLI::App& app, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command = app.add_subcommand("bench", "Measure reading and writing beside what this machine can do");
  add_opening_options(*command, settings->opening);
  BenchmarkOptions& options = settings->options;
  command->add_option("--prompts", options.prompts, "Lengths of prompts to read, in tokens")
      ->delimiter(',')
      ->check(from_one())
      ->capture_default_str();
  command->add_option("--contexts", options.contexts, "Lengths of text to write after, in tokens")
      ->delimiter(',')
      ->check(from_zero())
      ->capture_default_str();
  command->add_option("--steps", options.steps, "Tokens to write after each")->check(from_one())->capture_default_str();
  command->add_option("--rounds", options.rounds, "Measurements of each; medians are told")
      ->check(from_one())
      ->capture_default_str();
  command->add_option("--text", settings->text, "Text to read (default: the model's own general text)")
      ->type_name("FILE");
  examples(*command,
           {"tenon bench smollm2 --compute stored", "tenon bench bot --prompts 512,2048 --contexts 0,512,4096",
            "tenon bench bot --compute int8 --rounds 7 --json"});
  command->callback([settings, &context] { bench(*settings, context); });
}

} // namespace tenon

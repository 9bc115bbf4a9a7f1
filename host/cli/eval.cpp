// tenon eval: the one evaluation, on the command line.
#include "host/cli/eval_input.hpp"
#include "host/cli/numbers.hpp"
#include "host/cli/progress.hpp"
#include "host/evaluation/replay.hpp"
#include "host/evaluation/results.hpp"
#include "host/report/lineage.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace tenon {
namespace {

void show_tables(const Evaluation& evaluation, const std::vector<EvaluationVerdict>* verdicts, Context& context) {
  bool first = true;
  for (const ResultTable& table : tables(evaluation, verdicts)) {
    if (!std::exchange(first, false)) context.out.line("");
    context.out.line(context.out.paint(Style::bold, table.title));
    context.out.table({table.header, table.rows, {}});
  }
}

// A training's folder is named after its expert.
std::vector<TrainingCurve> read_curves(const std::vector<std::string>& folders) {
  std::vector<TrainingCurve> out;
  for (const std::string& folder : folders) {
    const std::filesystem::path path = std::filesystem::absolute(folder).lexically_normal() / "";
    out.push_back({path.parent_path().filename().string(), read_metrics(folder)});
  }
  return out;
}

std::string counted(std::size_t count, const std::string& one) {
  return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s");
}

std::string summary_of(const Composition& composition, const Evaluation& evaluation) {
  const ModelManifest& model = composition.model().manifest();
  std::vector<std::string> parts = {fmt::format("Model {} {}, cut {}:{}, with {}", model.name, model.version.text(),
                                                model.contract.cut.first, model.contract.cut.last,
                                                counted(composition.packages().size() - 1, "expert"))};
  if (!evaluation.corpora.empty())
    parts.push_back(counted(evaluation.corpora.size(), "text") +
                    fmt::format(" in blocks of {} tokens", evaluation.sequence_length));
  if (!evaluation.choices.empty()) parts.push_back(counted(evaluation.choices.size(), "file") + " of questions");
  parts.push_back(utc_now().substr(0, 10));
  return fmt::format("{}.", fmt::join(parts, "; "));
}

Evaluation measure(const EvalSettings& settings, Composition& composition, const EvaluationInput& input,
                   Context& context) {
  EvaluationOptions options = settings.options;
  std::optional<Replay> replay;
  if (!settings.replay.empty())
    options.replay = &replay.emplace(settings.replay, composition, input.corpora, options.sequence_length);
  options.removals = !settings.no_removals;
  options.interrupted = [] { return interrupted(); };
  std::optional<Progress> progress;
  std::string measured;
  options.progress = [&](const std::string& what, std::int64_t done, std::int64_t total) {
    if (measured != what) progress.reset();
    if (!progress) progress.emplace(context.out, "evaluating", total, what);
    measured = what;
    progress->update(done);
  };
  return evaluate(composition, input, options);
}

void eval(const EvalSettings& settings, Context& context) {
  const std::vector<TrainingCurve> curves = read_curves(settings.runs);
  std::optional<AtomicFile> page; // opened first: a folder that cannot be written to is said before the work, not after
  if (!settings.report.empty()) page.emplace(settings.report);
  const auto composition = open_composition(settings.opening, context);
  const EvaluationInput input = open_eval_input(settings, *composition, context);
  const Evaluation evaluation = measure(settings, *composition, input, context);

  std::vector<EvaluationVerdict> verdicts;
  if (settings.check) verdicts = judge(evaluation);
  const auto* judged = settings.check ? &verdicts : nullptr;
  json::object result = to_json(evaluation, judged);
  if (!composition->lock().slots.empty()) result["lock"] = composition->lock().to_json();
  if (!curves.empty()) result["runs"] = to_json(curves);
  if (page) {
    page->write(report_page({settings.opening.name, summary_of(*composition, evaluation), evaluation, judged, curves,
                             lineage_of(*composition, input.versus), result}));
    page->commit();
    context.out.note("report: " + settings.report);
  }
  if (context.flags.json)
    context.out.json(result);
  else
    show_tables(evaluation, judged, context);
  const auto failed =
      std::count_if(verdicts.begin(), verdicts.end(), [](const EvaluationVerdict& one) { return !one.passed; });
  if (failed > 0)
    throw Error(Code::environment, "evaluation", fmt::format("{} of {} rules fail", failed, verdicts.size()));
}

} // namespace

void add_eval(CLI::App& app, Context& context) {
  auto settings = std::make_shared<EvalSettings>();
  CLI::App* command = app.add_subcommand("eval", "Measure a composition beside its parts");
  add_opening_options(*command, settings->opening);
  add_eval_input_options(*command, *settings);
  command->add_option("--sequence-length", settings->options.sequence_length, "Tokens of a block")
      ->capture_default_str();
  command->add_option("--blocks", settings->options.blocks, "Blocks of each corpus, evenly spread; 0: all")
      ->check(from_zero());
  command->add_option("--random-rows", settings->options.random_rows, "Random routers to compare with")
      ->check(from_zero())
      ->capture_default_str();
  command->add_option("--seed", settings->options.seed, "Of the random routers")->capture_default_str();
  command->add_flag("--no-removals", settings->no_removals, "Do not remove each expert in turn");
  command
      ->add_option("--passages", settings->options.passages,
                   "Blocks of each corpus told token by token, in the report and with --json")
      ->check(from_zero());
  command->add_option("--report", settings->report, "Write the evaluation as one self-contained page")
      ->type_name("FILE");
  command
      ->add_option("--runs", settings->runs, "Folders of trainings (tenon expert train --out), for the report's curves")
      ->type_name("DIR")
      ->take_all();
  command->add_flag("--check", settings->check,
                    "Fail unless gain, gain kept, load, general text and pooled are as good as they should be");
  examples(*command,
           {"tenon eval bot --data news=news/:general --data law=held-out:legal:legal --check",
            "tenon eval bot --data law=held-out:legal:legal --versus lora=legal-lora --versus union=all-in-one",
            "tenon eval bot --data law=held-out:legal:legal --report bot.html --runs legal/",
            "tenon eval bot --data news=news/ --replay trace.safetensors", "tenon eval bot --choices quiz.jsonl --json",
            "tenon eval smollm2 --data text=book.txt --blocks 60 --json",
            "tenon eval bot --data talks=chats.jsonl:helper --format chat"});
  command->callback([settings, command, &context] {
    if (!settings->report.empty() && command->count("--passages") == 0) settings->options.passages = 1;
    eval(*settings, context);
  });
}

} // namespace tenon

// tenon eval: the one evaluation, on the command line.
#include "host/cli/opening.hpp"
#include "host/cli/progress.hpp"
#include "host/evaluation/report.hpp"
#include "host/formats/corpus.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tenon {
namespace {

namespace fs = std::filesystem;

struct EvalSettings {
  OpeningSettings opening;
  std::vector<std::string> data;
  std::string field = "text";
  EvaluationOptions options;
  bool no_removals = false, check = false;
};

// "setmm=held-out:runs/setmm:setmm": name, where the text is, whose domain it is.
struct DataArgument {
  std::string name, place, role;
  bool held_out = false; // place is a training's folder, and its held-out text is meant
};

bool is_role(const Composition& composition, const std::string& word) {
  const auto& packages = composition.packages();
  return word == "general" || std::any_of(packages.begin() + 1, packages.end(),
                                          [&](const ExpertPackage& package) { return package.entry.name == word; });
}

DataArgument parse_data(const std::string& text, const Composition& composition) {
  DataArgument out;
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos || equals + 1 == text.size())
    throw Error(Code::usage, "eval",
                "found --data " + text + ", need NAME=PATH, NAME=PATH:EXPERT or NAME=PATH:general");
  out.name = text.substr(0, equals);
  out.place = text.substr(equals + 1);
  const std::string prefix = "held-out:";
  if (out.place.rfind(prefix, 0) == 0) {
    out.held_out = true;
    out.place.erase(0, prefix.size());
  }
  const std::size_t colon = out.place.rfind(':');
  if (colon == std::string::npos || fs::exists(out.place)) return out;
  out.role = out.place.substr(colon + 1);
  out.place.erase(colon);
  if (!is_role(composition, out.role))
    throw Error(Code::usage, "eval",
                fmt::format("--data {}: found the role \"{}\", which is no expert of this composition", text, out.role),
                "name one of its experts, or general");
  return out;
}

// The held-out text that a training left in its folder.
fs::path held_out_shard(const fs::path& folder) {
  for (const fs::path& path : {folder / "held_out.tokens", folder / ".run" / "held_out.tokens"})
    if (fs::exists(path)) return path;
  throw Error(Code::not_found, "eval",
              folder.string() + " holds no held_out.tokens, need the folder of a finished training",
              "give the folder that tenon expert train wrote");
}

EvaluationCorpus open_corpus(const DataArgument& data, const Composition& composition, const EvalSettings& settings,
                             Context& context) {
  const fs::path place = data.held_out ? held_out_shard(data.place) : fs::path(data.place);
  if (place.extension() == ".tokens") return {data.name, data.role, Shard::open(place)};
  Progress progress(context.out, "reading " + data.name, 0, "bytes");
  CorpusOptions options;
  options.sequence_length = settings.options.sequence_length;
  options.field = settings.field;
  const CorpusWhole whole = prepare_whole(
      {place}, composition.model().tokenizer(), options, context.home.cache() / "corpora",
      [&](std::string_view, std::uint64_t done, std::uint64_t) { progress.update(static_cast<std::int64_t>(done)); });
  return {data.name, data.role, whole.tokens};
}

void show(const Evaluation& evaluation, const std::vector<EvaluationVerdict>* verdicts, Context& context) {
  if (context.flags.json) return context.out.json(to_json(evaluation, verdicts));
  bool first = true;
  for (const ReportTable& table : tables(evaluation, verdicts)) {
    if (!std::exchange(first, false)) context.out.line("");
    context.out.line(context.out.paint(Style::bold, table.title));
    context.out.table({table.header, table.rows, {}});
  }
}

void eval(const EvalSettings& settings, Context& context) {
  const auto composition = open_composition(settings.opening, context);
  std::vector<DataArgument> data;
  for (const std::string& text : settings.data) data.push_back(parse_data(text, *composition));
  std::vector<EvaluationCorpus> corpora;
  for (const DataArgument& one : data) corpora.push_back(open_corpus(one, *composition, settings, context));

  EvaluationOptions options = settings.options;
  options.removals = !settings.no_removals;
  options.interrupted = [] { return interrupted(); };
  std::optional<Progress> progress;
  options.progress = [&](std::int64_t done, std::int64_t total) {
    if (!progress) progress.emplace(context.out, "evaluating", total, "blocks");
    progress->update(done);
  };
  const Evaluation evaluation = evaluate(*composition, corpora, options);
  progress.reset();

  std::vector<EvaluationVerdict> verdicts;
  if (settings.check) verdicts = judge(evaluation);
  show(evaluation, settings.check ? &verdicts : nullptr, context);
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
  command
      ->add_option(
          "--data", settings->data,
          "A corpus: NAME=PATH (text, folder, JSONL or .tokens), or NAME=held-out:DIR for the held-out text of a "
          "training; then :EXPERT for whose domain it is, or :general")
      ->type_name("NAME=PATH")
      ->required()
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--field", settings->field, "The text field of JSONL lines")->capture_default_str();
  command->add_option("--sequence-length", settings->options.sequence_length, "Tokens of a block")
      ->capture_default_str();
  command->add_option("--blocks", settings->options.blocks, "Blocks of each corpus, evenly spread; 0: all")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--random-rows", settings->options.random_rows, "Random routers to compare with")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--seed", settings->options.seed, "Of the random routers")->capture_default_str();
  command->add_flag("--no-removals", settings->no_removals, "Do not remove each expert in turn");
  command->add_flag("--check", settings->check,
                    "Fail unless gain, gain kept, general text and pooled are as good as they should be");
  examples(*command, {"tenon eval bot --data news=news/:general --data law=held-out:legal:legal --check",
                      "tenon eval smollm2 --data text=book.txt --blocks 60 --json"});
  command->callback([settings, &context] { eval(*settings, context); });
}

} // namespace tenon
